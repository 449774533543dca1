//! The plot: a panel for each row of the table, a bar for each program.
//!
//! Bars are on a logarithmic scale of ratios to pila, whose line is in the middle: what reaches to the right is worse
//! than pila, what reaches to the left is better.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use crate::results::{Cell, Figures, short};

const COLUMNS: usize = 3;
const PANEL_WIDTH: u32 = 560;
const BAR: u32 = 20;
const TITLE: u32 = 40;
/// Where names end and bars have their middle.
const NAMES: i32 = 100;
const FIGURES: i32 = 150;
/// A bar reaches the panel's edge at so many times pila's.
const MOST: f64 = 100.0;

pub(crate) fn draw(all: &[Figures], path: &Path) -> Result<(), Box<dyn Error>> {
    let height = |figures: &Figures| TITLE + BAR * (shown(figures).len() as u32 + 1);
    let rows: Vec<_> = all.chunks(COLUMNS).collect();
    let heights: Vec<_> =
        rows.iter().map(|row| row.iter().map(height).max().unwrap_or(0)).collect();
    let size = (PANEL_WIDTH * COLUMNS as u32, heights.iter().sum::<u32>().max(1));
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let mut top = 0;
    for (row, height) in rows.iter().zip(heights) {
        for (column, figures) in row.iter().enumerate() {
            let left = column as i32 * PANEL_WIDTH as i32;
            panel(&area, figures, (left, top))?;
        }
        top += height as i32;
    }
    area.present()?;
    Ok(())
}

/// Those that have a figure.
fn shown(figures: &Figures) -> Vec<(&Cell, f64, f64)> {
    let with_figures = figures
        .cells
        .iter()
        .filter_map(|cell| Some((cell, cell.median()?, cell.ratio_to(figures.pila())?)));
    with_figures.collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(
    area: &Area<'_>,
    figures: &Figures,
    (left, top): (i32, i32),
) -> Result<(), Box<dyn Error>> {
    let font = |size: i32| ("sans-serif", size).into_font();
    let unit = figures.row.unit;
    let title = format!("{}, {}", figures.row.title, unit.name());
    area.draw(&Text::new(title, (left + 10, top + 12), font(16)))?;
    let shown = shown(figures);
    let (start, end) = (left + NAMES + 10, left + PANEL_WIDTH as i32 - FIGURES);
    let middle = i32::midpoint(start, end);
    let half = f64::from(end - start) / 2.0;
    for (place, (cell, median, ratio)) in shown.iter().enumerate() {
        let y = top + TITLE as i32 + place as i32 * BAR as i32;
        let worse = if unit.is_cost() { *ratio } else { 1.0 / ratio };
        let reach = (worse.log10() / MOST.log10()).clamp(-1.0, 1.0) * half;
        let edge = middle + reach as i32;
        let colour = match (place, cell.is_floor, worse > 1.0) {
            (0, ..) => RGBColor(30, 30, 30),
            (_, true, _) => RGBColor(170, 170, 170),
            (_, false, true) => RGBColor(60, 120, 190),
            (_, false, false) => RGBColor(210, 110, 40),
        };
        area.draw(&Text::new(cell.program.clone(), (left + 10, y + 3), font(13)))?;
        let bar = [(middle.min(edge), y + 2), (middle.max(edge).max(middle.min(edge) + 2), y + 16)];
        area.draw(&Rectangle::new(bar, colour.filled()))?;
        let ratio = if place == 0 { String::new() } else { format!("  {ratio:.2}×") };
        let figure = format!("{}{ratio}", short(*median, unit));
        area.draw(&Text::new(figure, (end + 8, y + 3), font(13)))?;
    }
    let bottom = top + TITLE as i32 + shown.len() as i32 * BAR as i32;
    let line = vec![(middle, top + TITLE as i32 - 4), (middle, bottom)];
    area.draw(&PathElement::new(line, BLACK.stroke_width(1)))?;
    Ok(())
}
