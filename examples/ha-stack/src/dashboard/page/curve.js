// The load curve: samples as lines, replicas as steps below, decisions as marks, lost hosts as bands.

import { clock, h, latency, number, patch, s } from './dom.js';

const LEFT = 40, RIGHT = 8, TOP = 24, STRIP = 46, GAP = 22, BOTTOM = 18;

/** Metrics: the lines to draw, how to write a value, and what the legend says. */
const METRICS = {
  in_flight: { lines: [['main', (p) => p.in_flight, 'in flight']], write: number, meant: true },
  rate: { lines: [['main', (p) => p.rate, 'requests a second']], write: number },
  latency: { lines: [['main', (p) => p.p99_ms, 'p99'], ['second', (p) => p.p95_ms, 'p95'], ['third', (p) => p.p50_ms, 'p50']], write: latency },
  errors: { lines: [['main', (p) => p.errors, 'answers of 5xx a second']], write: number },
};

export class Curve {
  constructor(root, legend) {
    Object.assign(this, { root, legend, metric: 'in_flight', span: 300, at: null, state: null });
    this.tip = h('div', { class: 'tip', hidden: true });
    this.svg = s('svg', { role: 'img', tabindex: '0', 'aria-label': 'Load and replicas over time; arrow keys read single moments' });
    root.append(this.svg, this.tip);
    const move = (event) => this.point(event.clientX - root.getBoundingClientRect().left);
    this.svg.addEventListener('pointermove', move);
    this.svg.addEventListener('pointerdown', move);
    this.svg.addEventListener('pointerleave', () => this.read(null));
    this.svg.addEventListener('blur', () => this.read(null));
    this.svg.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.state) return;
      event.preventDefault();
      this.read(Math.min(this.state.now, Math.max(this.scale.from, (this.at ?? this.state.now) + step * (event.shiftKey ? 15 : 3))));
    });
    new ResizeObserver(() => this.draw()).observe(root);
  }

  show(samples, frame) {
    this.state = { samples, frame, now: samples.at(-1)?.at ?? Date.now() / 1000 };
    this.draw();
  }

  point(x) {
    if (!this.state || !this.scale) return;
    const { from, width, span } = this.scale;
    this.read(from + (Math.max(0, Math.min(width, x - LEFT)) / width) * span);
  }

  read(at) {
    this.at = at;
    this.draw();
  }

  draw() {
    const box = this.root.getBoundingClientRect();
    if (!this.state || box.width < 80) return;
    const { samples, frame, now } = this.state;
    const metric = METRICS[this.metric];
    const width = box.width - LEFT - RIGHT, height = box.height - TOP - STRIP - GAP - BOTTOM;
    // A stack that has just started fills the curve too.
    const span = Math.max(60, Math.min(this.span, now - (samples[0]?.at ?? now)));
    const from = now - span;
    this.scale = { from, width, span };
    const x = (at) => LEFT + ((at - from) / span) * width;
    const seen = samples.filter((point) => point.at >= from - 2);
    const meant = (point) => (metric.meant && frame.view.target && point.usable !== null ? point.usable * frame.view.target : null);
    const values = seen.flatMap((point) => [...metric.lines.map(([, of]) => of(point)), meant(point)]).filter((v) => v !== null && v !== undefined);
    const top = ceiling(Math.max(1, ...values));
    const y = (value) => TOP + height - (value / top) * height;
    const fleetTop = Math.max(2, ...seen.map((point) => Math.max(point.wanted ?? 0, point.usable ?? 0)));
    const base = TOP + height + GAP + STRIP;
    const fy = (n) => base - (n / fleetTop) * (STRIP - 6);
    const parts = [
      ...frame.outages.filter((o) => (o.until ?? now) > from).map((o) => band(o, x, from, now, TOP, base)),
      [0, 0.5, 1].map((share) => [
        s('line', { class: 'grid', x1: LEFT, x2: LEFT + width, y1: y(top * share), y2: y(top * share) }),
        s('text', { x: LEFT - 6, y: y(top * share) + 4, 'text-anchor': 'end' }, metric.write(top * share)),
      ]),
      s('line', { class: 'grid', x1: LEFT, x2: LEFT + width, y1: base, y2: base }),
      s('text', { x: LEFT - 6, y: base, 'text-anchor': 'end' }, '0'),
      s('text', { x: LEFT - 6, y: fy(fleetTop) + 8, 'text-anchor': 'end' }, String(fleetTop)),
      s('text', { x: LEFT + 2, y: TOP + height + GAP - 7 }, 'replicas'),
      ticks(from, now, width).map((at) => s('text', { x: x(at), y: base + 14, 'text-anchor': 'middle' }, clock(at).slice(0, span > 300 ? 5 : 8))),
      metric.lines.length === 1 ? s('path', { class: 'area', d: area(seen, metric.lines[0][1], x, y) }) : null,
      s('path', { class: 'meant', d: steps(seen, meant, x, y) }),
      [...metric.lines].reverse().map(([kind, of]) => s('path', { class: kind, d: line(seen, of, x, y) })),
      s('path', { class: 'fleet', d: filled(seen, (p) => p.usable, x, fy, base) }),
      s('path', { class: 'wanted', d: steps(seen, (p) => p.wanted, x, fy) }),
      this.marks(frame.view.decisions, from, x, base),
      this.at === null ? null : s('line', { class: 'cross', x1: x(this.at), x2: x(this.at), y1: TOP, y2: base }),
    ];
    this.svg.setAttribute('viewBox', `0 0 ${box.width} ${box.height}`);
    patch(this.svg, parts);
    this.explain(seen, frame, x, box.width, metric);
    patch(this.legend, [
      metric.lines.map(([kind, , name]) => h('span', {}, h('i', { class: kind }), name)),
      metric.meant && frame.view.target ? h('span', {}, h('i', { class: 'meant' }), `what the replicas are meant for (${frame.view.target} each)`) : null,
      h('span', {}, h('i', { class: 'fleet' }), 'replicas in use'),
      h('span', {}, h('i', { class: 'wanted' }), 'wanted'),
      frame.outages.length ? h('span', {}, h('i', { class: 'outage' }), 'host away') : null,
    ]);
  }

  marks(decisions, from, x, base) {
    let last = -Infinity, row = 0;
    return changes(decisions).filter((decided) => decided.at >= from).map((decided) => {
      const label = `${decided.from}→${decided.to}`, at = x(decided.at), half = 5 + label.length * 3.6;
      row = at - last < half * 2 + 4 ? (row + 1) % 3 : 0;
      last = at;
      const y = 1 + row * 20;
      const middle = Math.max(LEFT + half, Math.min(at, this.root.clientWidth - RIGHT - half));
      return s('g', { class: `mark ${decided.to > decided.from ? 'up' : 'down'}` }, s('title', {}, decided.sentence),
        s('line', { x1: at, x2: at, y1: y + 18, y2: base }),
        s('rect', { x: middle - half, y, width: half * 2, height: 18, rx: 9 }), s('text', { x: middle, y: y + 13 }, label));
    });
  }

  explain(seen, frame, x, width, metric) {
    this.tip.hidden = this.at === null || !seen.length;
    if (this.tip.hidden) return;
    const point = seen.reduce((best, next) => (Math.abs(next.at - this.at) < Math.abs(best.at - this.at) ? next : best));
    const near = changes(frame.view.decisions).filter((decided) => Math.abs(decided.at - this.at) < this.scale.span / 60).at(-1);
    const out = frame.outages.filter((o) => o.from <= this.at && (o.until ?? Infinity) >= this.at).map((o) => o.host);
    patch(this.tip, [
      h('b', {}, clock(point.at)),
      metric.lines.map(([, of, name]) => h('div', {}, `${metric.write(of(point))} ${name}`)),
      h('div', {}, `${point.usable ?? '–'} of ${point.wanted ?? '–'} replicas in use`),
      out.length ? h('p', {}, `${out.join(', ')} away`) : null,
      near ? h('p', {}, near.sentence) : null,
    ]);
    const left = x(this.at), room = this.tip.offsetWidth + 14;
    this.tip.style.left = `${left + room > width ? Math.max(0, left - room) : left + 14}px`;
  }
}

const changes = (decisions) => decisions.filter((decided) => decided.to !== decided.from);

/** The next number from above that reads well on an axis. */
function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].map((n) => n * unit).find((n) => n >= value * 1.02) ?? 10 * unit;
}

function ticks(from, now, width) {
  const span = now - from;
  const step = [15, 30, 60, 120, 300].find((seconds) => (width / span) * seconds > 78) ?? 300;
  const first = Math.ceil((from + span * 0.04) / step) * step;
  return Array.from({ length: Math.floor((now - span * 0.03 - first) / step) + 1 }, (_, n) => first + n * step);
}

/** Stretches without a gap: what was not seen is not drawn. */
function stretches(points, of) {
  const all = [];
  let run = null, before = null;
  for (const point of points) {
    const value = of(point);
    const known = value !== null && value !== undefined;
    if (!known || (before !== null && point.at - before > 6)) run = null;
    before = point.at;
    if (!known) continue;
    if (!run) all.push((run = []));
    run.push([point.at, value]);
  }
  return all;
}

const at = (n) => n.toFixed(1);
const line = (points, of, x, y) => stretches(points, of).map((run) => `M${run.map(([t, v]) => `${at(x(t))} ${at(y(v))}`).join('L')}`).join('');
const area = (points, of, x, y) => stretches(points, of).map((run) => `M${at(x(run[0][0]))} ${at(y(0))}L${run.map(([t, v]) => `${at(x(t))} ${at(y(v))}`).join('L')}L${at(x(run.at(-1)[0]))} ${at(y(0))}Z`).join('');
const steps = (points, of, x, y) => stretches(points, of).map((run) => `M${at(x(run[0][0]))} ${at(y(run[0][1]))}${run.map(([t, v]) => `H${at(x(t))}V${at(y(v))}`).join('')}`).join('');
const filled = (points, of, x, y, base) => stretches(points, of).map((run) => `M${at(x(run[0][0]))} ${base}V${at(y(run[0][1]))}${run.map(([t, v]) => `H${at(x(t))}V${at(y(v))}`).join('')}V${base}Z`).join('');

function band(outage, x, from, now, top, base) {
  const left = x(Math.max(from, outage.from)), right = Math.max(left + 2, x(outage.until ?? now));
  return s('g', {}, s('title', {}, `${outage.host} away`), s('rect', { class: 'outage', x: left, y: top, width: right - left, height: base - top }),
    right - left > 26 ? s('text', { class: 'outage-name', x: left + 4, y: base - 5 }, outage.host) : null);
}
