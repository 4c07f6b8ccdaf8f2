"use strict";
// Names that are typed into the cards, and classes that are said to be the same.
const names = (() => {
  const { data } = report;
  const rows = new Map();
  document.querySelectorAll(".naming").forEach((row) => {
    rows.set(row.dataset.slot, { input: row.querySelector("input"), select: row.querySelector("select") });
  });
  const typed = (slot) => rows.get(slot)?.input.value.trim().replace(/\s+/g, " ") ?? "";
  const sameAs = (slot) => rows.get(slot)?.select.value ?? "";

  function root(slot) {
    let found = slot;
    while (sameAs(found)) found = sameAs(found);
    return found;
  }

  // Name of a slot as the fields say.
  const nameOfSlot = (slot) => typed(root(slot)) || root(slot);

  // Normal keeps the name that it has; it has no field.
  function nameOfClass(number) {
    const { slot, name } = data.classes[number];
    return slot && rows.has(slot) ? nameOfSlot(slot) : name;
  }

  function namesToSave() {
    const names = {};
    const groups = new Map();
    for (const slot of data.slots) {
      const first = root(slot);
      groups.set(first, [...(groups.get(first) ?? []), slot]);
      if (first === slot && typed(slot) && typed(slot) !== slot) names[slot] = typed(slot);
    }
    const normal = data.slots[0];
    if (data.hasNormal && data.normalName !== normal) names[normal] = data.normalName;
    return { names, same: [...groups.values()].filter((group) => group.length > 1) };
  }

  // The mistakes that reading the file would refuse.
  function mistake({ names }) {
    for (const [slot, name] of Object.entries(names)) {
      if (name.includes(";")) return `The name of ${slot} holds “;”, which parts names in tables: leave it out.`;
      if (data.hasNormal && name === data.slots[0]) return `To make ${slot} normal, choose “same as ${name}”.`;
      if (data.slots.includes(name) && name !== slot && !names[name] && root(name) === name) {
        return `${slot} has the name of another class, ${name}: choose “same as ${name}”.`;
      }
    }
    return "";
  }

  return { rows, sameAs, nameOfSlot, nameOfClass, namesToSave, mistake };
})();
