//! The plots: what the relays cost, and how long clients wait.

use std::path::Path;

use anyhow::{Result, anyhow};
use mtproxy_bench::work::Route;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::results::{Results, RouteResult, WorkResult};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1000;
const PANEL_HEIGHT: u32 = 300;
/// Room for the line that says where this was measured.
const FOOT_HEIGHT: u32 = 24;

fn color(route: Route) -> RGBColor {
    match route {
        Route::Direct => RGBColor(150, 150, 150),
        Route::Nginx => RGBColor(0, 130, 60),
        Route::Plain => RGBColor(90, 160, 220),
        Route::Dd => RGBColor(30, 110, 190),
        Route::Ee => RGBColor(10, 60, 130),
    }
}

/// CPU of the relay for each operation or MiB: a panel a work, a bar a route.
pub(crate) fn cpu(results: &Results, file: &Path) -> Result<()> {
    let rows = u32::try_from(results.works.len().div_ceil(2))?;
    let root = SVGBackend::new(file, (WIDTH, rows * PANEL_HEIGHT + FOOT_HEIGHT)).into_drawing_area();
    let panels_area = begin(&root, results, rows * PANEL_HEIGHT)?;
    let panels = panels_area.split_evenly((usize::try_from(rows)?, 2));
    for (work, panel) in results.works.iter().zip(&panels) {
        let bars: Vec<Bar> = work.routes.iter().filter_map(cpu_bar).collect();
        let title = format!("{}: relay CPU, µs per {}", work.work.title(), work.work.unit());
        draw_bars(panel, &title, &bars).map_err(|error| anyhow!("drawing {}: {error}", file.display()))?;
    }
    root.present().map_err(|error| anyhow!("drawing {}: {error}", file.display()))
}

/// Percentiles of latency: a panel a work, three bars a route.
pub(crate) fn latency(results: &Results, file: &Path) -> Result<()> {
    let works: Vec<&WorkResult> = results.works.iter().filter(|work| !work.work.is_bulk()).collect();
    let rows = u32::try_from(works.len())?;
    let root = SVGBackend::new(file, (WIDTH, rows * PANEL_HEIGHT + FOOT_HEIGHT)).into_drawing_area();
    let panels_area = begin(&root, results, rows * PANEL_HEIGHT)?;
    if works.is_empty() {
        return root.present().map_err(|error| anyhow!("drawing {}: {error}", file.display()));
    }
    for (work, panel) in works.iter().zip(panels_area.split_evenly((works.len(), 1))) {
        let bars: Vec<Bar> = work.routes.iter().flat_map(latency_bars).collect();
        let title = format!("{}: latency, µs, {} clients at once", work.work.title(), work.work.clients());
        draw_bars(&panel, &title, &bars).map_err(|error| anyhow!("drawing {}: {error}", file.display()))?;
    }
    root.present().map_err(|error| anyhow!("drawing {}: {error}", file.display()))
}

struct Bar {
    label: String,
    value: f64,
    /// Lowest and highest round.
    range: Option<(f64, f64)>,
    color: RGBColor,
}

fn cpu_bar(route: &RouteResult) -> Option<Bar> {
    let cpu = route.relay_cpu_us_per_unit?;
    let label = route.route.title().to_owned();
    Some(Bar { label, value: cpu.median, range: Some((cpu.min, cpu.max)), color: color(route.route) })
}

fn latency_bars(route: &RouteResult) -> Vec<Bar> {
    let Some(latency) = route.latency_us else { return Vec::new() };
    let bar = |name: &str, value| {
        let route_name = route.route.title().trim_start_matches("mtproxy ").trim_end_matches(" stream");
        let label = format!("{route_name} {name}");
        Bar { label, value, range: None, color: color(route.route) }
    };
    vec![bar("p50", latency.p50), bar("p99", latency.p99), bar("p99.9", latency.p99_9)]
}

/// Fills the background and writes the foot; answers the area for the panels.
fn begin<'a>(root: &Area<'a>, results: &Results, panels_height: u32) -> Result<Area<'a>> {
    root.fill(&WHITE).map_err(|error| anyhow!("drawing: {error}"))?;
    let (panels, foot) = root.split_vertically(panels_height);
    let style = ("sans-serif", 11).into_font().color(&BLACK.mix(0.6));
    foot.draw_text(&results.machine.line(), &style, (10, 6)).map_err(|error| anyhow!("drawing: {error}"))?;
    Ok(panels)
}

#[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
fn draw_bars(
    panel: &Area<'_>,
    title: &str,
    bars: &[Bar],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>> {
    let top = bars.iter().map(|bar| bar.range.map_or(bar.value, |(_, high)| high)).fold(1.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..bars.len() as f64, 0.0..top)?;
    chart.configure_mesh().disable_x_mesh().x_labels(0).y_labels(6).light_line_style(WHITE).draw()?;
    for (index, bar) in bars.iter().enumerate() {
        let left = index as f64;
        let column = [(left + 0.15, 0.0), (left + 0.85, bar.value)];
        chart.draw_series([Rectangle::new(column, bar.color.filled())])?;
        if let Some((low, high)) = bar.range {
            chart.draw_series([PathElement::new([(left + 0.5, low), (left + 0.5, high)], BLACK)])?;
        }
        let number =
            if bar.value < 100.0 { format!("{:.1}", bar.value) } else { format!("{:.0}", bar.value) };
        let at = |x: f64, y: f64| chart.backend_coord(&(x, y));
        let (x, y) = at(left + 0.2, bar.range.map_or(bar.value, |(_, high)| high));
        panel.draw_text(
            &number,
            &("sans-serif", 11).into_font().color(&BLACK),
            relative(panel, (x, y - 14)),
        )?;
        let (x, y) = at(left + 0.1, 0.0);
        panel.draw_text(
            &bar.label,
            &("sans-serif", 11).into_font().color(&BLACK),
            relative(panel, (x, y + 6)),
        )?;
    }
    Ok(())
}

/// Coordinates of the whole picture as those of one panel.
fn relative(panel: &Area<'_>, (x, y): (i32, i32)) -> (i32, i32) {
    let (left, top) = panel.get_base_pixel();
    (x - left, y - top)
}
