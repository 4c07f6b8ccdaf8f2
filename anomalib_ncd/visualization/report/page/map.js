"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const byId = (id) => document.getElementById(id);

  // ------------------------------------------------------------------ the map
  const map = byId("map");
  const context = map.getContext("2d");
  const ring = byId("ring").getContext("2d");
  const tip = byId("tip");
  const sheets = data.tile.sheets.map((src) => Object.assign(new Image(), { src }));
  const count = data.x.length;
  const hidden = new Set();
  const view = { scale: 1, x: 0, y: 0 };
  const screenX = new Float32Array(count);
  const screenY = new Float32Array(count);
  let members = [];
  const selected = new Set();
  const corrected = new Set(data.corrected);
  function sortIntoClasses() {
    members = data.classes.map(() => []);
    data.classOf.forEach((number, region) => members[number].push(region));
  }
  let colors = [];
  let ink = "";
  let accent = "";
  let size = { width: 0, height: 0 };
  let current = -1;
  let frame = null;
  let framing = false;
  let pending = false;

  function readColors() {
    const style = getComputedStyle(document.documentElement);
    ink = style.getPropertyValue("--ink").trim();
    accent = style.getPropertyValue("--accent").trim();
    marks.readPaper(style.getPropertyValue("--panel").trim());
    colors = data.classes.map(({ color }) =>
      style.getPropertyValue(color < 0 ? "--normal" : `--c${color % 12}`).trim(),
    );
  }

  const shapeOf = (number) => marks.shapeOf(data.classes[number].color);
  const reachX = Math.max(0.05, ...data.x.map(Math.abs));
  const reachY = Math.max(0.05, ...data.y.map(Math.abs));
  const pixelsPerUnit = () =>
    Math.min((size.width / 2 - 22) / reachX, (size.height / 2 - 22) / reachY) * view.scale;

  function place() {
    const unit = pixelsPerUnit();
    for (let region = 0; region < count; region += 1) {
      screenX[region] = size.width / 2 + (data.x[region] - view.x) * unit;
      screenY[region] = size.height / 2 - (data.y[region] - view.y) * unit;
    }
    return unit;
  }

  const markRadius = () =>
    (count > 2000 ? 2.6 : count > 500 ? 3.6 : 4.6) * Math.min(2, Math.max(1, Math.sqrt(view.scale)));

  function draw() {
    pending = false;
    place();
    const radius = markRadius();
    context.clearRect(0, 0, size.width, size.height);
    context.globalAlpha = 0.85;
    members.forEach((regions, number) => {
      if (hidden.has(number)) return;
      const stamp = marks.stampOf(shapeOf(number), radius, colors[number]);
      const half = stamp.side / 2;
      for (const region of regions) {
        const x = screenX[region];
        const y = screenY[region];
        if (x > -9 && y > -9 && x < size.width + 9 && y < size.height + 9) {
          context.drawImage(stamp.canvas, x - half, y - half, stamp.side, stamp.side);
        }
      }
    });
    context.globalAlpha = 1;
    drawRing();
  }

  // Rings: around what is selected, what was corrected, and the current region.
  // They lie on a canvas of its own: pointing about draws nothing else anew.
  function drawRing() {
    ring.clearRect(0, 0, size.width, size.height);
    const circle = (region, distance, color, width) => {
      if (hidden.has(data.classOf[region])) return;
      ring.beginPath();
      ring.arc(screenX[region], screenY[region], markRadius() + distance, 0, 2 * Math.PI);
      ring.strokeStyle = color;
      ring.lineWidth = width;
      ring.stroke();
    };
    corrected.forEach((region) => circle(region, 2.5, ink, 1));
    selected.forEach((region) => circle(region, 4, accent, 2.5));
    if (current >= 0) circle(current, 6, ink, 2);
    if (frame) {
      ring.fillStyle = ring.strokeStyle = accent;
      ring.lineWidth = 1.5;
      ring.globalAlpha = 0.12;
      ring.fillRect(frame.x, frame.y, frame.width, frame.height);
      ring.globalAlpha = 1;
      ring.strokeRect(frame.x, frame.y, frame.width, frame.height);
    }
  }

  function redraw() {
    if (pending) return;
    pending = true;
    requestAnimationFrame(draw);
  }

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    size = { width: map.clientWidth, height: map.clientHeight };
    for (const layer of [context, ring]) {
      layer.canvas.width = Math.round(size.width * ratio);
      layer.canvas.height = Math.round(size.height * ratio);
      layer.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    redraw();
  }

  function nearest(x, y, reach) {
    let best = -1;
    let least = reach * reach;
    for (let region = 0; region < count; region += 1) {
      const dx = screenX[region] - x;
      const dy = screenY[region] - y;
      const distance = dx * dx + dy * dy;
      if (distance < least && !hidden.has(data.classOf[region])) {
        least = distance;
        best = region;
      }
    }
    return best;
  }

  function regionsIn({ x, y, width, height }) {
    const found = [];
    for (let region = 0; region < count; region += 1) {
      const dx = screenX[region] - x;
      const dy = screenY[region] - y;
      if (dx >= 0 && dy >= 0 && dx <= width && dy <= height && !hidden.has(data.classOf[region])) found.push(region);
    }
    return found;
  }

  function describe(region) {
    const value = data.value[region];
    const sure = `${Math.round(value * 100)} %`;
    const lines = [`${nameOfClass(data.classOf[region])}, ${sure}`];
    if (data.doubtful[region] && data.second[region] >= 0) lines.push(`or ${nameOfClass(data.second[region])}`);
    if (data.unknown[region]) lines.push("unknown");
    if (corrected.has(region)) lines.push("corrected");
    lines.push(data.images[data.imageOf[region]]);
    return lines;
  }

  // The crop of a region, on a canvas, from the sheet that it stands in.
  function drawCrop(canvas, region) {
    const { px, perRow } = data.tile;
    const place = region % (perRow * perRow);
    const sheet = sheets[Math.floor(region / (perRow * perRow))];
    const { width, height } = canvas;
    const to = canvas.getContext("2d");
    to.imageSmoothingQuality = "high";
    const paintIt = () => {
      to.clearRect(0, 0, width, height);
      to.drawImage(sheet, (place % perRow) * px, Math.floor(place / perRow) * px, px, px, 0, 0, width, height);
    };
    if (sheet.complete) paintIt();
    else sheet.addEventListener("load", paintIt, { once: true });
  }

  function show(region) {
    if (region === current) return;
    current = region;
    tip.hidden = region < 0;
    if (region >= 0) {
      drawCrop(byId("tip-crop"), region);
      const lines = describe(region);
      byId("tip-text").textContent = lines.join("\n");
      byId("tip-crop").setAttribute("aria-label", `Region of ${lines[lines.length - 1]}`);
      const left = screenX[region] + 178 > size.width ? screenX[region] - 178 : screenX[region] + 16;
      tip.style.left = `${Math.max(4, left)}px`;
      tip.style.top = `${Math.min(Math.max(4, screenY[region] - 80), Math.max(4, size.height - 220))}px`;
    }
    drawRing();
  }

  function zoom(factor, x = size.width / 2, y = size.height / 2) {
    const unit = place();
    const scale = Math.min(60, Math.max(0.8, view.scale * factor));
    const ratio = scale / view.scale;
    view.x += ((x - size.width / 2) / unit) * (1 - 1 / ratio);
    view.y -= ((y - size.height / 2) / unit) * (1 - 1 / ratio);
    view.scale = scale;
    show(-1);
    redraw();
  }

  function showAll() {
    Object.assign(view, { scale: 1, x: 0, y: 0 });
    show(-1);
    redraw();
  }

  // From region to region: the nearest one within 45° of the arrow.
  function step(dx, dy) {
    const fromX = current < 0 ? size.width / 2 : screenX[current];
    const fromY = current < 0 ? size.height / 2 : screenY[current];
    let best = -1;
    let least = Infinity;
    for (let region = 0; region < count; region += 1) {
      if (region === current || hidden.has(data.classOf[region])) continue;
      const x = screenX[region] - fromX;
      const y = screenY[region] - fromY;
      const along = x * dx + y * dy;
      const across = Math.abs(x * dy) + Math.abs(y * dx);
      const isVisible =
        screenX[region] > 0 && screenY[region] > 0 && screenX[region] < size.width && screenY[region] < size.height;
      if (isVisible && (current < 0 || (along > 0 && across <= along)) && Math.hypot(x, y) < least) {
        least = Math.hypot(x, y);
        best = region;
      }
    }
    if (best >= 0) {
      show(best);
      byId("map-status").textContent = describe(best).join(", ");
    }
  }

  function listen() {
    let drag = null;
    let start = null;
    map.addEventListener("pointerdown", (event) => {
      drag = start = { x: event.offsetX, y: event.offsetY };
      if (event.shiftKey || framing) frame = { ...start, width: 0, height: 0 };
      if (event.pointerType === "mouse" || frame) map.setPointerCapture(event.pointerId);
    });
    map.addEventListener("pointermove", (event) => {
      if (frame && event.buttons) {
        frame = {
          x: Math.min(start.x, event.offsetX),
          y: Math.min(start.y, event.offsetY),
          width: Math.abs(event.offsetX - start.x),
          height: Math.abs(event.offsetY - start.y),
        };
        show(-1);
        drawRing();
        return;
      }
      if (drag && event.buttons) {
        const unit = pixelsPerUnit();
        view.x -= (event.offsetX - drag.x) / unit;
        view.y += (event.offsetY - drag.y) / unit;
        drag = { x: event.offsetX, y: event.offsetY };
        map.classList.add("dragging");
        show(-1);
        redraw();
        return;
      }
      show(nearest(event.offsetX, event.offsetY, 16));
    });
    map.addEventListener("pointerup", (event) => {
      const isClick = start && Math.hypot(event.offsetX - start.x, event.offsetY - start.y) < 4;
      const found = nearest(event.offsetX, event.offsetY, 24);
      const box = frame;
      drag = start = frame = null;
      map.classList.remove("dragging");
      if (isClick && found >= 0) onSelect([found], "toggle");
      else if (box) onSelect(regionsIn(box), "add");
      show(found);
    });
    map.addEventListener("pointerleave", () => show(-1));
    map.addEventListener("blur", () => show(-1));
    map.addEventListener("dblclick", (event) => zoom(2, event.offsetX, event.offsetY));
    map.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
      },
      { passive: false },
    );
    map.addEventListener("keydown", (event) => {
      const keys = {
        ArrowLeft: () => step(-1, 0),
        ArrowRight: () => step(1, 0),
        ArrowUp: () => step(0, -1),
        ArrowDown: () => step(0, 1),
        "+": () => zoom(1.5),
        "=": () => zoom(1.5),
        "-": () => zoom(1 / 1.5),
        0: showAll,
        Escape: () => show(-1),
        Enter: () => current >= 0 && onSelect([current], "toggle"),
        " ": () => current >= 0 && onSelect([current], "toggle"),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    byId("frame").addEventListener("click", () => {
      framing = !framing;
      byId("frame").setAttribute("aria-pressed", String(framing));
      map.classList.toggle("framing", framing);
    });
    document.querySelectorAll("[data-zoom]").forEach((button) => {
      const factor = Number(button.dataset.zoom);
      button.addEventListener("click", () => (factor ? zoom(factor) : showAll()));
    });
    new ResizeObserver(resize).observe(map);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      readColors();
      drawLegend();
      redraw();
    });
  }

  function drawLegend() {
    const legend = byId("legend");
    legend.replaceChildren(
      ...data.classes.map((_, number) => {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(!hidden.has(number)));
        const symbol = document.createElement("canvas");
        symbol.width = symbol.height = 36;
        const to = symbol.getContext("2d");
        to.scale(2, 2);
        marks.draw(to, shapeOf(number), 9, 9, 5, colors[number]);
        symbol.setAttribute("aria-hidden", "true");
        const name = document.createElement("span");
        name.className = "name";
        name.textContent = nameOfClass(number);
        const amount = document.createElement("span");
        amount.className = "count";
        amount.textContent = members[number].length.toLocaleString("en");
        button.append(symbol, name, amount);
        button.title = "Show or hide this class";
        button.addEventListener("click", () => {
          if (!hidden.delete(number)) hidden.add(number);
          button.setAttribute("aria-pressed", String(!hidden.has(number)));
          show(-1);
          redraw();
        });
        return button;
      }),
    );
  }

  let onSelect = () => {};
  let nameOfClass = (number) => data.classes[number].name;

  // Draws everything anew after classes, or what is in them, have changed.
  function refresh() {
    sortIntoClasses();
    readColors();
    drawLegend();
    redraw();
  }

  sortIntoClasses();
  readColors();
  drawLegend();
  listen();
  resize();
  window.report = {
    data,
    draw,
    count,
    selected,
    corrected,
    drawCrop,
    drawRing,
    refresh,
    colorOf: (number) => colors[number],
    position: (region) => ({ x: screenX[region], y: screenY[region] }),
    whenSelected: (callback) => {
      onSelect = callback;
    },
    nameClassesBy: (callback) => {
      nameOfClass = callback;
    },
  };
})();
