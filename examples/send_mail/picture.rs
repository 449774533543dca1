//! A picture of what a terminal shows, as SVG.

/// How large a character is, and how far the text is from the edge.
const WIDTH: f64 = 7.85;
const HEIGHT: f64 = 17.0;
const MARGIN: f64 = 20.0;

/// Draws the lines of `text`. What begins with an exclamation mark is warned of, a table's first line is faint.
pub(crate) fn terminal(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(100);
    let width = columns as f64 * WIDTH + 2.0 * MARGIN;
    let height = lines.len() as f64 * HEIGHT + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1e2127\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" \
         font-size=\"13\" xml:space=\"preserve\">\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let baseline = MARGIN + (index as f64 + 0.75) * HEIGHT;
        // Each word at its place, whatever the font: they have to stand in columns.
        for (column, word) in words(line) {
            let (x, length) = (MARGIN + column as f64 * WIDTH, word.chars().count() as f64 * WIDTH);
            svg += &format!(
                "<text x=\"{x:.1}\" y=\"{baseline:.1}\" textLength=\"{length:.1}\" \
                 lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\">{}</text>\n",
                colour(line),
                escaped(&word)
            );
        }
    }
    svg + "</g>\n</svg>\n"
}

/// What stands between spaces of a line, and at which columns; single spaces do not part.
fn words(line: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut spaces = 2;
    for (column, character) in line.chars().enumerate() {
        match (character, words.last_mut()) {
            (' ', _) => spaces += 1,
            (_, Some((_, word))) if spaces < 2 => {
                word.extend(std::iter::repeat_n(' ', spaces));
                word.push(character);
                spaces = 0;
            }
            _ => {
                words.push((column, character.to_string()));
                spaces = 0;
            }
        }
    }
    words
}

fn colour(line: &str) -> &'static str {
    match line.trim_start() {
        text if text.starts_with('!') || line.starts_with("      ") => "#e5c07b",
        text if text.starts_with("way ") => "#7f8794",
        text if text.starts_with("tasklets") => "#98c379",
        text if text.starts_with('$') => "#61afef",
        _ => "#d7dae0",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
