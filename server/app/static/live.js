// Follows the session of a page: leads to sign-in when it is over, and shows what changes in it.
// Pages work without this file. GET /events is described in docs/operations.md.
"use strict";
(() => {
  const { user, signIn } = document.currentScript.dataset;
  const FIRST_MS = 4000, LONGEST_MS = 60000; // of the time until the next attempt to connect
  const ROTATION_MS = 5000; // until the browser has the session ID that another tab was given
  const tabs = new BroadcastChannel("stormcellar-session");
  const list = () => document.getElementById("session-list");
  let source = null, timer = 0, failures = 0, rotatedUntil = 0, isSending = false;

  function connect() {
    disconnect();
    // A browser opens few connections to a host over HTTP/1.1, for all of its tabs.
    if (document.hidden || isSending) return;
    source = new EventSource(list()?.dataset.events ?? "/events");
    source.addEventListener("session", event => showSession(JSON.parse(event.data)));
    source.addEventListener("sessions", event => showList(JSON.parse(event.data).html));
    source.addEventListener("session_over", event => {
      const { reason } = JSON.parse(event.data);
      tabs.postMessage(reason);
      over(reason);
    });
    source.addEventListener("error", event => {
      const isRefused = event.target.readyState === EventSource.CLOSED;
      disconnect();
      if (isRefused) ask(); else later();
    });
  }

  function disconnect() {
    source?.close();
    source = null;
    clearTimeout(timer);
  }

  function later() {
    // At a random time: after a restart of the server every page of the site comes back.
    const most = Math.min(LONGEST_MS, FIRST_MS * 2 ** failures);
    failures += 1;
    clearTimeout(timer);
    timer = setTimeout(connect, Math.random() * most);
  }

  function over(reason) {
    if (reason === "replaced") rotatedUntil = Date.now() + ROTATION_MS;
    disconnect();
    ask();
  }

  async function ask() {
    const options = { method: "HEAD", signal: AbortSignal.timeout(10000) };
    const status = await fetch("/events", options).then(answer => answer.status, () => 0);
    if (status === 401 && Date.now() >= rotatedUntil) leave();
    else if (source === null) later();
  }

  function leave() {
    disconnect();
    // The answer to a form that is being sent, such as "Sign out", shows what has happened.
    if (!isSending) location.replace(signIn);
  }

  function show() {
    isSending = false;
    connect();
  }

  function showSession(session) {
    failures = 0;
    if (session.user !== user) {
      leave();
      return;
    }
    for (const input of document.querySelectorAll("input[name=_xsrf]")) input.value = session.form_token;
    const idle = document.getElementById("idle");
    if (idle === null) return;
    const url = `/idle.css?left=${session.left_s}`;
    if (idle.getAttribute("href") === url) restartBanners(); // the browser does not load it again
    idle.onload = restartBanners;
    idle.href = url;
  }

  function restartBanners() {
    for (const banner of document.querySelectorAll(".banner"))
      for (const animation of banner.getAnimations()) animation.currentTime = 0;
  }

  function showList(html) {
    const before = list(), after = new DOMParser().parseFromString(html, "text/html").getElementById("session-list");
    if (content(before) === content(after)) return;
    const focused = before.contains(document.activeElement) ? document.activeElement : null;
    before.replaceWith(after);
    // Not on another button, which a key that is being pressed would push.
    if (focused !== null) (button(after, focused.form?.action) ?? after).focus({ preventScroll: true });
  }

  function content(shown) {
    return [shown.textContent, ...Array.from(shown.querySelectorAll("form"), form => form.action)].join();
  }

  function button(shown, action) {
    return Array.from(shown.querySelectorAll("button")).find(each => each.form.action === action);
  }

  addEventListener("pageshow", show);
  addEventListener("pagehide", disconnect);
  document.addEventListener("visibilitychange", () => document.hidden ? disconnect() : show());
  addEventListener("submit", () => isSending = true);
  tabs.onmessage = event => over(event.data);
})();
