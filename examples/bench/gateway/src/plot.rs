//! The comparison as a picture: a bar for each proxy, shorter is better.

use std::fmt::Write;

/// One panel: what it shows, its unit, and a value for each name.
pub struct Panel<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub bars: Vec<(&'a str, f64)>,
}

/// An SVG of panels side by side.
pub fn svg(panels: &[Panel<'_>]) -> String {
    let rows = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let (width, height) = (panels.len() * PANEL, 34 + rows * ROW + 6);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    for (n, panel) in panels.iter().enumerate() {
        let left = n * PANEL;
        let most = panel.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(out, "<text x=\"{}\" y=\"18\" fill=\"#888\">{}</text>", left + 8, panel.title);
        for (row, (name, value)) in panel.bars.iter().enumerate() {
            let (y, length) = (30 + row * ROW, (value / most * BAR).max(1.0));
            let color = if row == 0 { "#2f81f7" } else { "#999" };
            let (text, from, to) = (y + 15, left + 8, left + NAME);
            let _ = writeln!(out, "<text x=\"{from}\" y=\"{text}\" fill=\"#888\">{name}</text>");
            let _ = writeln!(out, "<rect x=\"{to}\" y=\"{y}\" width=\"{length:.0}\" height=\"20\" fill=\"{color}\"/>");
            let at = to as f64 + length + 6.0;
            let _ = writeln!(out, "<text x=\"{at:.0}\" y=\"{text}\" fill=\"#888\">{value:.1} {}</text>", panel.unit);
        }
    }
    out.push_str("</svg>\n");
    out
}

const PANEL: usize = 400;
const NAME: usize = 74;
const BAR: f64 = 230.0;
const ROW: usize = 26;
