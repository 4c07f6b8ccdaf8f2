"use strict";
// Marks of the classes: circle, square, triangle, diamond, or a cross for what looks normal.
const marks = (() => {
  const CROSS = 4;
  let paper = "";

  const shapeOf = (color) => (color < 0 ? CROSS : (color + Math.floor(color / 12)) % 4);

  function outline(to, shape, x, y, r) {
    if (shape === 0) {
      to.moveTo(x + r, y);
      to.arc(x, y, r, 0, 2 * Math.PI);
    } else if (shape === 1) {
      to.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    } else if (shape === 2) {
      to.moveTo(x, y - 1.2 * r);
      to.lineTo(x + 1.1 * r, y + 0.8 * r);
      to.lineTo(x - 1.1 * r, y + 0.8 * r);
      to.closePath();
    } else if (shape === 3) {
      to.moveTo(x, y - 1.25 * r);
      to.lineTo(x + 1.25 * r, y);
      to.lineTo(x, y + 1.25 * r);
      to.lineTo(x - 1.25 * r, y);
      to.closePath();
    } else {
      to.moveTo(x - r, y - r);
      to.lineTo(x + r, y + r);
      to.moveTo(x + r, y - r);
      to.lineTo(x - r, y + r);
    }
  }

  function paint(to, shape, color) {
    if (shape === CROSS) {
      to.strokeStyle = color;
      to.lineWidth = 1.4;
      to.stroke();
      return;
    }
    // A thin edge sets marks off from other classes; below the fill, it leaves dense places solid.
    to.strokeStyle = paper;
    to.lineWidth = 1.6;
    to.stroke();
    to.fillStyle = color;
    to.fill();
  }

  function draw(to, shape, x, y, r, color) {
    to.beginPath();
    outline(to, shape, x, y, r);
    paint(to, shape, color);
  }

  // One mark is drawn once and then copied, which is much faster than thousands of paths.
  const stamps = new Map();
  function stampOf(shape, radius, color) {
    const ratio = window.devicePixelRatio || 1;
    const key = [shape, radius, ratio, color, paper].join();
    if (!stamps.has(key)) {
      if (stamps.size > 400) stamps.clear();
      const side = Math.ceil(2 * (1.3 * radius + 2));
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = Math.ceil(side * ratio);
      const to = canvas.getContext("2d");
      to.scale(ratio, ratio);
      draw(to, shape, side / 2, side / 2, radius, color);
      stamps.set(key, { canvas, side });
    }
    return stamps.get(key);
  }

  function readPaper(color) {
    paper = color;
  }

  return { shapeOf, draw, stampOf, readPaper };
})();
