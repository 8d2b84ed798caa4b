//! Replays as a picture: load, capacity and decisions, as SVG text.

use std::fmt::Write;

use super::plant::PlantModel;
use super::report::{Report, Sample};

/// One strip for each report, one below the other: the load as an area, what the instances that serve can do and what
/// those wanted could do as lines, overload in red, a tick at each change of the count. In a text viewer and a browser
/// alike it says what it shows.
pub fn picture(title: &str, reports: &[Report], model: &PlantModel) -> String {
    let mut svg = String::new();
    let height = TOP + reports.len() as f64 * (STRIP + GAP);
    // Writing to a string can't fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"38\" fill=\"#555\">grey: load; blue: what serves can do; dashed: what is wanted; red: \
         overload; ticks below: decisions</text>",
        escaped(title)
    );
    let highest = reports.iter().flat_map(|report| &report.samples).fold(1.0f64, |highest, sample| {
        highest.max(sample.load).max(f64::from(sample.wanted) * model.capacity)
    });
    for (index, report) in reports.iter().enumerate() {
        strip(&mut svg, report, model, TOP + index as f64 * (STRIP + GAP), highest);
    }
    svg.push_str("</svg>\n");
    svg
}

fn strip(svg: &mut String, report: &Report, model: &PlantModel, top: f64, highest: f64) {
    let bottom = top + STRIP;
    let x = |second: u64| LEFT + (WIDTH - LEFT - RIGHT) * second as f64 / report.seconds.max(1) as f64;
    let y = |load: f64| bottom - STRIP * load / highest;
    let said = format!(
        "{}: {} s of overload in {} s, cost {:.2}, {} changes of the count, {} turns",
        report.name,
        report.overload_seconds,
        report.seconds,
        report.cost_ratio,
        report.actions,
        report.direction_changes
    );
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top - 6.0, escaped(&said));
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{highest:.0}</text>\n\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\" fill=\"#555\">0</text>",
        LEFT - 6.0,
        top + 10.0,
        LEFT - 6.0
    );
    let samples = thinned(&report.samples);
    let mut area = format!("M{LEFT:.1} {bottom:.1}");
    for sample in &samples {
        let _ = write!(area, "L{:.1} {:.1}", x(sample.second), y(sample.load));
    }
    let _ = writeln!(svg, "<path d=\"{area}L{:.1} {bottom:.1}Z\" fill=\"#d5d5d5\"/>", x(report.seconds));
    let pixel = (x(report.seconds) - LEFT) / samples.len().max(1) as f64;
    for sample in samples.iter().filter(|sample| sample.overloaded) {
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{STRIP}\" fill=\"#d22\" fill-opacity=\"0.35\"/>",
            x(sample.second),
            pixel.max(0.5)
        );
    }
    for (style, of) in [
        ("stroke=\"#36c\" stroke-dasharray=\"3 3\" stroke-opacity=\"0.6\"", 0),
        ("stroke=\"#36c\" stroke-width=\"1.5\"", 1),
    ] {
        let (mut line, mut last) = (String::new(), None);
        for sample in &samples {
            let count = if of == 0 { sample.wanted } else { sample.ready };
            let (x, y) = (x(sample.second), y(f64::from(count) * model.capacity));
            let _ = match last.replace(count) {
                None => write!(line, "M{x:.1} {y:.1}"),
                Some(before) if before != count => write!(line, "H{x:.1}V{y:.1}"),
                Some(_) => Ok(()),
            };
        }
        let _ = write!(line, "H{:.1}", x(report.seconds));
        let _ = writeln!(svg, "<path d=\"{line}\" fill=\"none\" {style}/>");
    }
    let mut ticks = String::new();
    for (second, _) in &report.log {
        let _ = write!(ticks, "M{:.1} {bottom:.1}v5", x(*second));
    }
    let _ = writeln!(svg, "<path d=\"{ticks}\" stroke=\"#222\" fill=\"none\"/>");
}

/// No more than can be told apart: of neighbours the highest load, and the counts of the last.
fn thinned(samples: &[Sample]) -> Vec<Sample> {
    let together = samples.len().div_ceil(COLUMNS).max(1);
    let merged = samples.chunks(together).filter_map(|chunk| {
        let last = *chunk.last()?;
        let load = chunk.iter().map(|sample| sample.load).fold(0.0, f64::max);
        Some(Sample { load, overloaded: chunk.iter().any(|sample| sample.overloaded), ..last })
    });
    merged.collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Moments in a strip.
const COLUMNS: usize = 480;
const WIDTH: f64 = 960.0;
const TOP: f64 = 64.0;
const STRIP: f64 = 110.0;
const GAP: f64 = 40.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
