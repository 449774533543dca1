//! What came of all runs, and the table that shows it.

use std::fmt::Write;

use crate::work::{Row, Unit};

/// The figures of one program in one row, a round each.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) program: String,
    /// It is no peer, so it is not among those who may be ahead.
    pub(crate) is_floor: bool,
    /// A round that failed has none.
    pub(crate) figures: Vec<Option<f64>>,
    /// Why there are none.
    pub(crate) why_not: Option<String>,
}

impl Cell {
    pub(crate) fn median(&self) -> Option<f64> {
        median(self.figures.iter().flatten().copied().collect())
    }

    /// The median of how many times as much of `unit` as in `base` it takes, each round compared with the same one.
    pub(crate) fn ratio_to(&self, base: &Cell) -> Option<f64> {
        let pairs = self.figures.iter().zip(&base.figures);
        median(pairs.filter_map(|(one, other)| Some((*one)? / (*other)?)).collect())
    }
}

/// The middle one; the mean of the two in the middle when their number is even.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        count if count % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}

/// A row, filled. Its first cell is pila's.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) row: Row,
    pub(crate) cells: Vec<Cell>,
}

impl Figures {
    pub(crate) fn pila(&self) -> &Cell {
        &self.cells[0]
    }

    pub(crate) fn cell(&self, program: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.program == program)
    }

    /// The peers that are ahead of pila by more than the noise, and how far.
    pub(crate) fn ahead(&self) -> Vec<(&str, f64)> {
        let better = |ratio: f64| if self.row.unit.is_cost() { ratio < 0.95 } else { ratio > 1.05 };
        let peers = self.cells.iter().skip(1).filter(|cell| !cell.is_floor);
        let ratios = peers.filter_map(|cell| Some((&*cell.program, cell.ratio_to(self.pila())?)));
        ratios.filter(|(_, ratio)| better(*ratio)).collect()
    }
}

/// A figure with its unit, short enough for a table.
pub(crate) fn short(value: f64, unit: Unit) -> String {
    let number = match value {
        value if value >= 1_000_000.0 => format!("{:.2}M", value / 1e6),
        value if value >= 10_000.0 => format!("{:.0}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    };
    format!("{number} {}", unit.name()).replace(" /s", "/s")
}

/// The table in Markdown: medians, and next to each in parentheses how many times pila's it is.
pub(crate) fn table(all: &[Figures]) -> String {
    let mut programs: Vec<&str> = Vec::new();
    for cell in all.iter().flat_map(|figures| &figures.cells) {
        if !programs.contains(&&*cell.program) {
            programs.push(&cell.program);
        }
    }
    let mut text =
        format!("| | {} |\n|---|{}\n", programs.join(" | "), "---:|".repeat(programs.len()));
    for figures in all {
        let cells: Vec<_> = programs.iter().map(|program| cell_text(figures, program)).collect();
        writeln!(text, "| {} | {} |", figures.row.title, cells.join(" | ")).expect("it is text");
    }
    text
}

fn cell_text(figures: &Figures, program: &str) -> String {
    let Some(cell) = figures.cell(program) else { return "–".to_owned() };
    let Some(median) = cell.median() else { return "–".to_owned() };
    let value = short(median, figures.row.unit);
    match cell.ratio_to(figures.pila()) {
        Some(ratio) if program != figures.pila().program => format!("{value} ({ratio:.2}×)"),
        _ => format!("**{value}**"),
    }
}

/// Where pila is not first, a line each.
pub(crate) fn not_first(all: &[Figures]) -> String {
    let mut text = String::new();
    for figures in all {
        let ahead = figures.ahead();
        if !ahead.is_empty() {
            let names: Vec<_> =
                ahead.iter().map(|(name, ratio)| format!("{name} ({ratio:.2}×)")).collect();
            writeln!(text, "- {}: {}", figures.row.title, names.join(", ")).expect("it is text");
        }
    }
    if text.is_empty() { "- nowhere in this table\n".to_owned() } else { text }
}

/// Why cells are empty, a line each program and reason.
pub(crate) fn empty_cells(all: &[Figures]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for figures in all {
        for cell in &figures.cells {
            if let Some(why) = cell.why_not.as_ref().filter(|why| *why != "has none") {
                let line = format!("- {}, {}: {why}", cell.program, figures.row.title);
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(program: &str, figures: &[Option<f64>]) -> Cell {
        let figures = figures.to_vec();
        Cell { program: program.to_owned(), is_floor: false, figures, why_not: None }
    }

    fn figures(unit: Unit, cells: Vec<Cell>) -> Figures {
        Figures { row: Row { metric: "ns", title: "a row".to_owned(), unit }, cells }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        let pila = cell("pila", &[Some(1.0), Some(10.0), Some(3.0)]);
        let other = cell("other", &[Some(2.0), Some(20.0), None]);
        assert_eq!(other.ratio_to(&pila), Some(2.0));
    }

    #[test]
    fn ahead_is_who_costs_less_or_gives_more() {
        let cells = |other| vec![cell("pila", &[Some(100.0)]), cell("other", &[Some(other)])];
        assert_eq!(figures(Unit::Nanoseconds, cells(50.0)).ahead(), [("other", 0.5)]);
        assert_eq!(figures(Unit::PerSecond, cells(50.0)).ahead(), []);
        assert_eq!(figures(Unit::PerSecond, cells(200.0)).ahead(), [("other", 2.0)]);
        assert_eq!(figures(Unit::Nanoseconds, cells(97.0)).ahead(), []);
    }

    #[test]
    fn a_program_without_a_figure_has_a_dash() {
        let cells = vec![cell("pila", &[Some(12.34)]), cell("other", &[None])];
        let table = table(&[figures(Unit::Nanoseconds, cells)]);
        assert_eq!(table, "| | pila | other |\n|---|---:|---:|\n| a row | **12.3 ns** | – |\n");
    }
}
