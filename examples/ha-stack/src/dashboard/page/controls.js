// Changing things: the token, the dialogs, and the requests. Without a token this page only reads.

import { $, h, patch } from './dom.js';

const KEY = 'ha-stack-token';

export class Controls {
  constructor(redraw) {
    Object.assign(this, { redraw, rights: null, token: sessionStorage.getItem(KEY), wish: null, view: null });
    $('lock').addEventListener('click', () => (this.unlocked ? this.forget() : this.ask()));
    document.addEventListener('click', (event) => {
      const button = event.target.closest?.('[data-action]');
      if (button) this.act(button.dataset);
    });
  }

  get unlocked() {
    return Boolean(this.rights?.controls && this.token);
  }

  async begin(rights) {
    this.rights = rights;
    if (this.token && !(await this.check(this.token))) this.forget();
    this.redraw();
  }

  show(view) {
    this.view = view;
    const lock = $('lock');
    lock.textContent = this.unlocked ? 'Unlocked' : 'Read-only';
    lock.title = this.unlocked ? 'Forget the token' : this.rights?.read_only ?? 'Enter the token to change things';
    const box = $('controls');
    box.hidden = !this.unlocked;
    if (box.hidden) return;
    const count = this.wish ?? view.wanted ?? 0;
    const held = Boolean(view.hold);
    patch(box, [
      h('div', { class: 'group' }, h('span', {}, 'Replicas'),
        h('button', { class: 'ghost step', type: 'button', 'data-action': 'less', 'aria-label': 'One replica less', disabled: count <= 0 }, '−'),
        h('output', { 'aria-live': 'polite' }, String(count)),
        h('button', { class: 'ghost step', type: 'button', 'data-action': 'more', 'aria-label': 'One replica more' }, '+'),
        h('button', { class: 'solid', type: 'button', 'data-action': 'scale', disabled: count === view.wanted }, `Scale to ${count}`)),
      h('div', { class: 'group' },
        h('label', { for: 'hold' }, 'keep the scaler off for'),
        h('select', { id: 'hold' }, [[60, '1 min'], [300, '5 min'], [3600, '1 h'], [86400, '1 day']].map(([seconds, text]) => h('option', { value: seconds, selected: seconds === 300 }, text)))),
      h('div', { class: 'group' },
        held ? h('button', { class: 'ghost', type: 'button', 'data-action': 'resume' }, 'Resume the scaler') : h('button', { class: 'ghost', type: 'button', 'data-action': 'pause' }, 'Pause the scaler')),
    ]);
  }

  async act({ action, host, on }) {
    if (!this.unlocked) return;
    const wanted = this.view.wanted ?? 0;
    const hold_seconds = Number($('hold')?.value ?? 300);
    const count = this.wish ?? wanted;
    if (action === 'less' || action === 'more') {
      this.wish = Math.max(0, count + (action === 'more' ? 1 : -1));
      this.show(this.view);
    } else if (action === 'scale') {
      if (count === 0 && !(await this.confirm('Turn the service off?', 'Without a replica requests wait for a while and then fail. The scaler leaves a service that is off alone.', 'Turn it off'))) return;
      this.wish = null;
      await this.send('scale', { replicas: count, hold_seconds }, `${count} replicas asked for`);
    } else if (action === 'pause') await this.send('pause', { hold_seconds }, 'The scaler is paused');
    else if (action === 'resume') await this.send('resume', undefined, 'The scaler decides again');
    else if (action === 'drain') {
      const drain = on === 'true';
      if (drain && !(await this.confirm(`Drain ${host}?`, 'Its replicas move to other hosts, and no new ones come until it is used again.', 'Drain'))) return;
      await this.send('drain', { host, on: drain }, drain ? `${host} is being drained` : `${host} is in use again`);
    }
  }

  async send(path, body, done) {
    try {
      const answer = await fetch(`api/${path}`, { method: 'POST', body: body && JSON.stringify(body), headers: { ...this.header(this.token), ...(body ? { 'content-type': 'application/json' } : {}) } });
      if (answer.status === 401) this.forget();
      toast(answer.ok ? done : `Refused: ${await answer.text()}`);
    } catch (error) {
      toast(`Not sent: ${error.message}`);
    }
  }

  header(token) {
    return { authorization: `Bearer ${token}` };
  }

  async check(token) {
    const answer = await fetch('api/unlock', { headers: this.header(token) }).catch(() => null);
    return Boolean(answer?.ok);
  }

  forget() {
    this.token = null;
    sessionStorage.removeItem(KEY);
    this.redraw();
  }

  ask() {
    if (!this.rights?.controls) {
      this.dialog('Read-only', [h('p', {}, this.rights?.read_only ?? 'Not connected yet.')], [['Close', 'ghost', null]]);
      return;
    }
    const field = h('input', { type: 'password', autocomplete: 'off', 'aria-label': 'Token', placeholder: 'Token' });
    const wrong = h('p', { class: 'wrong', hidden: true, role: 'alert' }, 'That is not the token.');
    const unlock = async () => {
      if (await this.check(field.value.trim())) {
        this.token = field.value.trim();
        sessionStorage.setItem(KEY, this.token);
        this.redraw();
        return true;
      }
      wrong.hidden = false;
      field.select();
      return false;
    };
    field.addEventListener('keydown', async (event) => { if (event.key === 'Enter' && (await unlock())) $('dialog').close(); });
    this.dialog('Change things', [h('p', {}, 'The token that ha-stack was started with (--token, HA_STACK_TOKEN). It stays in this tab.'), field, wrong], [['Cancel', 'ghost', null], ['Unlock', 'solid', unlock]]);
    field.focus();
  }

  confirm(title, text, verb) {
    return new Promise((answer) => {
      this.dialog(title, [h('p', {}, text)], [['Cancel', 'ghost', () => answer(false)], [verb, 'solid', () => answer(true)]]);
      $('dialog').addEventListener('cancel', () => answer(false), { once: true });
    });
  }

  dialog(title, body, buttons) {
    const made = buttons.map(([text, kind, act]) => {
      const button = h('button', { class: kind, type: 'button' }, text);
      button.addEventListener('click', async () => { if ((await act?.()) !== false || text === 'Cancel') $('dialog').close(); });
      return button;
    });
    $('dialog').replaceChildren(h('h2', { id: 'dialog-title' }, title), ...body, h('div', { class: 'buttons' }, made));
    $('dialog').showModal();
  }
}

let hide;
function toast(text) {
  const box = $('toast');
  box.textContent = text;
  box.dataset.on = '';
  clearTimeout(hide);
  hide = setTimeout(() => delete box.dataset.on, 6000);
}
