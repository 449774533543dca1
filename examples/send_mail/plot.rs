//! The comparison as a picture: time and memory against the number of mails, a line for each way.

use std::{error::Error, ops::Range, path::Path};

use plotters::{
    coord::{Shift, ranged1d::ValueFormatter},
    prelude::*,
};

use crate::{row::Row, survey::Section, table::grouped, ways::WAYS};

const SIZE: (u32, u32) = (980, 470);

/// How wide the list of ways is.
const LEGEND: u32 = 130;

/// A colour for each way, in their order; told apart on screen and in print.
const COLOURS: [RGBColor; 9] = [
    RGBColor(127, 127, 127),
    RGBColor(214, 39, 40),
    RGBColor(255, 152, 150),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(23, 190, 207),
    RGBColor(188, 189, 34),
];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A way's points: numbers of mails and values.
type Line = (usize, Vec<(f64, f64)>);

/// Draws what the sections that compute nothing have measured into the file `path`.
pub(crate) fn draw(
    path: &Path,
    sections: &[Section],
    subtitle: &str,
) -> Result<(), Box<dyn Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let title = ("sans-serif", 19).into_font().color(&BLACK);
        root.draw(&Text::new("Every way to send many mails at once", (20, 14), title))?;
        let small = ("sans-serif", 13).into_font().color(&RGBColor(90, 90, 90));
        root.draw(&Text::new(subtitle.to_string(), (20, 39), small))?;
        let (_, below) = root.split_vertically(62);
        let (charts, legend) = below.split_horizontally(SIZE.0 - LEGEND);
        let [left, right] = [0, 1].map(|index| charts.split_evenly((1, 2))[index].clone());
        // What was only a sample is shown with the time that all would take.
        let times = lines(sections, |row| {
            if row.is_sample { row.time_of_all().as_secs_f64() } else { row.seconds }
        });
        time_chart(&left, &times)?;
        memory_chart(&right, &lines(sections, |row| row.peak_kib as f64 / 1024.0))?;
        list(&legend, &times)?;
        root.present()?;
    }
    Ok(std::fs::write(path, svg)?)
}

/// What `value` says about the rows without limits, for each way that has any.
fn lines(sections: &[Section], value: impl Fn(&Row) -> f64) -> Vec<Line> {
    let rows = || sections.iter().filter(|section| section.work == 0).flat_map(|s| &s.rows);
    let of_way = |(index, way): (usize, &crate::ways::Way)| {
        let rows = rows().filter(|row| row.way == way.name && row.address_space.is_none());
        let mut points: Vec<_> = rows
            .map(|row| (f64::from(row.mails), value(row)))
            .filter(|point| point.1 > 0.0)
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (!points.is_empty()).then_some((index, points))
    };
    WAYS.iter().enumerate().filter_map(of_way).collect()
}

/// Draws the time with a logarithmic scale: it takes from a blink to half an hour.
fn time_chart(area: &Panel<'_>, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let (mails, (low, high)) = (mails(lines), extremes(lines.iter().flat_map(values)));
    let chart = builder(area, "time, seconds")
        .build_cartesian_2d(mails.log_scale(), (low / 1.5..high * 1.5).log_scale())?;
    fill(chart, lines)
}

fn memory_chart(area: &Panel<'_>, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let (mails, (_, high)) = (mails(lines), extremes(lines.iter().flat_map(values)));
    let chart =
        builder(area, "peak memory, MiB").build_cartesian_2d(mails.log_scale(), 0.0..high * 1.1)?;
    fill(chart, lines)
}

fn builder<'a, 'b>(area: &'a Panel<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).margin_left(20).caption(title, ("sans-serif", 15));
    builder.x_label_area_size(42).y_label_area_size(46);
    builder
}

fn fill<'a, Y>(
    mut chart: ChartContext<'_, SVGBackend<'a>, Cartesian2d<LogCoord<f64>, Y>>,
    lines: &[Line],
) -> Result<(), Box<dyn Error>>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let number = |value: &f64| match *value {
        value if value < 1.0 => value.to_string(),
        value => grouped(value as u64),
    };
    chart
        .configure_mesh()
        .x_desc("mails to send at once")
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .y_labels(8)
        .max_light_lines(0)
        .bold_line_style(RGBColor(225, 225, 225))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (index, points) in lines {
        let style = COLOURS[*index].stroke_width(width(*index));
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        let dot = |&point: &(f64, f64)| Circle::new(point, 3, COLOURS[*index].filled());
        chart.draw_series(points.iter().map(dot))?;
    }
    Ok(())
}

fn values(line: &Line) -> impl Iterator<Item = f64> {
    line.1.iter().map(|point| point.1)
}

/// The numbers of mails, from a bit below the least to a bit above the greatest.
fn mails(lines: &[Line]) -> Range<f64> {
    let (low, high) = extremes(lines.iter().flat_map(|line| &line.1).map(|point| point.0));
    low / 1.25..high * 1.25
}

/// The least and the greatest of `values`.
fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)))
}

/// The line this is about is the thickest.
fn width(index: usize) -> u32 {
    if WAYS[index].name == "tasklets" { 4 } else { 2 }
}

/// Which colour is which way.
fn list(area: &Panel<'_>, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let style = ("sans-serif", 14).into_font().color(&BLACK);
    for (row, (index, _)) in lines.iter().enumerate() {
        let y = 50 + 24 * row as i32;
        let stroke = COLOURS[*index].stroke_width(width(*index));
        area.draw(&PathElement::new(vec![(4, y + 7), (28, y + 7)], stroke))?;
        area.draw(&Text::new(WAYS[*index].name, (36, y), style.clone()))?;
    }
    Ok(())
}
