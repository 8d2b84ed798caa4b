//! What `top` draws: a function of what was seen, and of the size of the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table};

use crate::dashboard::sampler::Start;
use crate::dashboard::timeline::Kind;
use crate::dashboard::verdict::Level;
use crate::dashboard::view;
use crate::platform::{GatewayStatus, Replica};

/// What is on the screen.
pub(super) struct Shown {
    /// The newest that could be had.
    pub(super) start: Start,
    /// Why the newest look failed, if it did.
    pub(super) error: Option<String>,
}

/// Draws everything that has room, the most important first.
pub(super) fn draw(screen: &mut Frame<'_>, shown: &Shown) {
    let Some(seen) = &shown.start.frame else {
        screen.render_widget(Paragraph::new("nothing has been seen yet"), screen.area());
        return;
    };
    let replicas = u16::try_from(seen.view.replicas.len()).unwrap_or(u16::MAX).saturating_add(2);
    let gateways = u16::try_from(seen.view.gateways.len()).unwrap_or(u16::MAX).saturating_add(2);
    let [head, curves, hosts, table, doors, news, foot] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(if screen.area().height >= 24 { 6 } else { 0 }),
        Constraint::Length(1),
        Constraint::Length(replicas),
        Constraint::Length(if screen.area().height >= 30 { gateways } else { 0 }),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(screen.area());
    screen.render_widget(heading(seen, shown.error.as_deref()), head);
    draw_curves(screen, curves, &shown.start.history);
    screen.render_widget(host_line(&seen.view), hosts);
    screen.render_widget(replica_table(seen), table);
    screen.render_widget(gateway_table(&seen.view.gateways), doors);
    screen.render_widget(happened(seen, news.height), news);
    let keys = format!(" q quits   seen from {}", seen.view.seen_from);
    screen.render_widget(Paragraph::new(keys).dim(), foot);
}

fn heading<'a>(seen: &'a view::Frame, error: Option<&'a str>) -> Paragraph<'a> {
    let view = &seen.view;
    let verdict = match error {
        Some(error) => Line::from(vec![" ✗ No news: ".bold().red(), error.into()]),
        None => {
            let (sign, color) = match seen.verdict.level {
                Level::Good => ("✓", Color::Green),
                Level::Growing => ("↑", Color::Cyan),
                Level::Warn => ("!", Color::Yellow),
                Level::Bad => ("✗", Color::Red),
            };
            let title =
                Span::styled(format!(" {sign} {}", seen.verdict.title), Style::new().fg(color).bold());
            Line::from(vec![title, ": ".into(), seen.verdict.text.as_str().into()])
        }
    };
    let sample = &seen.sample;
    let figures = format!(
        " {}/s   {} in flight, {} waiting   p50 {}  p95 {}  p99 {}   {} errors/s",
        number(sample.rate),
        count(sample.in_flight),
        count(sample.waiting),
        milliseconds(sample.p50_ms),
        milliseconds(sample.p95_ms),
        milliseconds(sample.p99_ms),
        number(sample.errors),
    );
    let scaler = match (&view.hold, view.decisions.last()) {
        (Some(hold), _) => format!(" scaler paused: {hold}"),
        (None, Some(decided)) => format!(" scaler: {}", decided.sentence),
        (None, None) => " scaler: no decision so far".into(),
    };
    let title = Line::from(vec![format!(" {} ", view.service).bold(), format!("on {}", view.platform).dim()]);
    Paragraph::new(vec![title, verdict, figures.into(), scaler.into()])
}

fn draw_curves(screen: &mut Frame<'_>, area: Rect, history: &[view::Sample]) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(70), Constraint::Percentage(30)]).areas(area);
    let newest = |width: u16| history.len().saturating_sub(usize::from(width));
    let load = history.get(newest(left.width)..).unwrap_or_default();
    let most = load.iter().filter_map(|point| point.in_flight).max().unwrap_or(0);
    let title = format!(" in flight, up to {most} ");
    let block = |title: String| Block::new().borders(Borders::TOP).title(title);
    // What was not seen is a hole, not a zero.
    let curve = Sparkline::default().data(load.iter().map(|point| point.in_flight));
    screen.render_widget(curve.block(block(title)).fg(Color::Blue), left);
    let fleet = history.get(newest(right.width)..).unwrap_or_default();
    let most = fleet.iter().filter_map(|point| point.usable).max().unwrap_or(0);
    let title = format!(" replicas in use, up to {most} ");
    let curve = Sparkline::default().data(fleet.iter().map(|point| point.usable.map(|n| n as u64)));
    screen.render_widget(curve.block(block(title)).fg(Color::Cyan), right);
}

fn host_line(view: &view::View) -> Line<'_> {
    let mut spans = vec![Span::raw(" ")];
    for host in &view.hosts {
        let leads =
            if host.leads.is_empty() { String::new() } else { format!(" ({})", host.leads.join(", ")) };
        let text = match (host.up, host.drained) {
            (false, _) => format!("✗ {} no power", host.name).red().bold(),
            (true, true) => format!("↓ {} drained", host.name).yellow(),
            (true, false) => format!("✓ {}{leads}", host.name).green(),
        };
        spans.extend([text, Span::raw("   ")]);
    }
    for backend in &view.backends {
        spans.push(match backend.ok {
            true => format!("✓ {}   ", backend.name).dim(),
            false => format!("✗ {}: {}   ", backend.name, backend.detail).red().bold(),
        });
    }
    Line::from(spans)
}

fn replica_table(seen: &view::Frame) -> Table<'_> {
    let rate = |replica: &Replica| {
        let work = seen.work.iter().find(|work| work.instance == replica.instance);
        work.map_or_else(|| "–".into(), |work| number(Some(work.rate)))
    };
    let rows = seen.view.replicas.iter().map(|replica| {
        let retry =
            replica.retry_in_seconds.map(|s| format!(", tried again in {s:.1} s")).unwrap_or_default();
        let state = format!("{}{retry}", replica.state);
        let short: String = replica.instance.split('.').take(2).collect::<Vec<_>>().join(".");
        let row = Row::new([
            format!(" {short}"),
            replica.host.clone(),
            replica.in_flight.to_string(),
            rate(replica),
            milliseconds(replica.latency_ms),
            state,
        ]);
        match (replica.usable, replica.state.starts_with("ejected")) {
            (true, _) => row,
            (false, true) => row.red(),
            (false, false) => row.yellow(),
        }
    });
    let widths = [
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Min(10),
    ];
    table(rows.collect(), widths, [" REPLICA", "HOST", "IN FLIGHT", "PER SEC", "LATENCY", "STATE"])
}

fn gateway_table(gateways: &[GatewayStatus]) -> Table<'_> {
    let rows = gateways.iter().map(|gateway| match &gateway.error {
        Some(error) => Row::new([format!(" {}", gateway.name), "silent".into(), error.clone()]).red(),
        None => Row::new([
            format!(" {}", gateway.name),
            gateway.in_flight.to_string(),
            number(Some(gateway.rate)),
            milliseconds(gateway.p50_ms.map(|_| gateway.p95_ms)),
            gateway.errors_total.to_string(),
            gateway.retries_total.to_string(),
        ]),
    });
    let widths = [
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Min(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    table(rows.collect(), widths, [" GATEWAY", "IN FLIGHT", "PER SEC", "P95", "5XX", "RETRIES"])
}

fn table<'a>(rows: Vec<Row<'a>>, widths: [Constraint; 6], names: [&'static str; 6]) -> Table<'a> {
    Table::new(rows, widths).header(Row::new(names).dim().underlined())
}

fn happened(seen: &view::Frame, height: u16) -> Paragraph<'_> {
    let room = usize::from(height.saturating_sub(1));
    let lines = seen.timeline.iter().rev().take(room).map(|entry| {
        let (sign, color) = match entry.kind {
            Kind::Fault => ("✗", Color::Red),
            Kind::Recovery => ("✓", Color::Green),
            Kind::Change => ("→", Color::Gray),
        };
        let ago = (seen.sample.at - entry.at).max(0.0);
        Line::from(vec![
            format!(" {:>6} ", format!("-{ago:.0} s")).dim(),
            Span::styled(format!("{sign} "), Style::new().fg(color)),
            entry.text.as_str().into(),
        ])
    });
    Paragraph::new(lines.collect::<Vec<_>>())
        .block(Block::new().borders(Borders::TOP).title(" faults and recovery "))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.1}"))
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "–".into(), |value| value.to_string())
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.1} ms"))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::dashboard::timeline::Entry;
    use crate::dashboard::verdict::Verdict;
    use crate::dashboard::view::{Sample, View, Work};
    use crate::platform::{Decided, Host};

    fn seen() -> Start {
        let host = |name: &str, up| Host { name: name.into(), up, ..Host::default() };
        let ready = Replica {
            instance: "web.1.abc".into(),
            host: "h1".into(),
            usable: true,
            state: "ready".into(),
            in_flight: 7,
            ..Replica::default()
        };
        let lost = Replica {
            instance: "web.2.def".into(),
            host: "h2".into(),
            state: "ejected: 2 failed probes in a row".into(),
            retry_in_seconds: Some(3.4),
            ..Replica::default()
        };
        let view = View {
            service: "web".into(),
            platform: "swarm".into(),
            wanted: Some(2),
            hosts: vec![host("h1", true), host("h2", false)],
            replicas: vec![ready, lost],
            decisions: vec![Decided {
                at: 1.0,
                from: 2,
                to: 3,
                sentence: "2 -> 3: 24 in flight over a target of 10 each".into(),
            }],
            ..View::default()
        };
        let sample = Sample { at: 100.0, in_flight: Some(7), rate: Some(70.0), ..Sample::default() };
        let frame = view::Frame {
            verdict: Verdict {
                level: Level::Warn,
                title: "A host is away".into(),
                text: "1 of 2 hosts up".into(),
            },
            view,
            sample,
            work: vec![Work { instance: "web.1.abc".into(), rate: 70.0, failures: 0.0 }],
            timeline: vec![Entry {
                at: 96.0,
                kind: Kind::Fault,
                text: "host h2 has no power or no network".into(),
            }],
            ..view::Frame::default()
        };
        Start { history: vec![sample, Sample { at: 101.0, ..Sample::default() }], frame: Some(frame) }
    }

    fn screen(width: u16, height: u16, shown: &Shown) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, shown)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_lost_host_is_seen_at_a_glance() {
        let text = screen(120, 32, &Shown { start: seen(), error: None });
        for words in [
            "! A host is away: 1 of 2 hosts up",
            "70.0/s   7 in flight, – waiting",
            "scaler: 2 -> 3: 24 in flight over a target of 10 each",
            "✓ h1",
            "✗ h2 no power",
            "web.1       h1",
            "ejected: 2 failed probes in a row, tried again in 3.4 s",
            "-4 s ✗ host h2 has no power or no network",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_stack_that_went_silent_is_said_and_the_last_view_stays() {
        let text = screen(100, 30, &Shown { start: seen(), error: Some("no stack answers".into()) });
        assert!(text.contains("No news: no stack answers") && text.contains("web.1"), "{text}");
    }

    #[test]
    fn a_tiny_screen_and_an_empty_view_are_drawn() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            screen(width, height, &Shown { start: seen(), error: None });
            screen(width, height, &Shown { start: Start::default(), error: None });
        }
    }
}
