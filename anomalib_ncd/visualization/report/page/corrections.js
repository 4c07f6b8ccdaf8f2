"use strict";
(() => {
  const { data, count, selected, corrected, drawCrop, drawRing, refresh, colorOf, whenSelected, nameClassesBy } = report;
  const { rows, sameAs, nameOfSlot, nameOfClass, namesToSave, mistake } = names;
  const { alike, groupsOf } = likeness;
  const byId = (id) => document.getElementById(id);
  const MOST_THUMBS = 30;
  const ALIKE = 8;
  const NO_SEPARATOR = "A name can't hold “;”, which parts names in tables.";

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // ---------------------------------------------------------- the corrections
  // What is said of a region: { to: class } or { not: class }, by the number of the class.
  const original = [...data.classOf];
  const kept = new Set(data.corrected);
  let said = new Map();
  const past = [];
  let isSaved = true;

  function apply() {
    corrected.clear();
    kept.forEach((region) => corrected.add(region));
    original.forEach((number, region) => {
      const word = said.get(region);
      if (word) corrected.add(region);
      data.classOf[region] = word && word.to !== undefined ? word.to : number;
    });
    refresh();
    showState();
  }

  function remember() {
    past.push({ said: new Map(said), texts: textsOfImages });
  }

  function say(regions, word) {
    remember();
    const next = new Map(said);
    for (const region of regions) {
      next.set(region, word.not ? { not: original[region] } : { to: word.to });
    }
    said = next;
    isSaved = false;
    selected.clear();
    apply();
  }

  function undo() {
    if (!past.length) return;
    ({ said, texts: textsOfImages } = past.pop());
    images.forEach((field, place) => (field.value = textsOfImages[place]));
    isSaved = false;
    apply();
  }

  function assign(number) {
    if (selected.size) say([...selected], { to: number });
  }

  const defects = () => data.classes.flatMap(({ color }, number) => (color < 0 ? [] : [number]));
  const normalClass = () => data.classes.findIndex(({ color }) => color < 0);

  function assignNormal() {
    if (selected.size) assign(classNamed("normal"));
  }

  function classNamed(name) {
    const isNormal = name === "normal";
    const found = isNormal ? normalClass() : data.classes.findIndex((_, number) => nameOfClass(number) === name);
    if (found >= 0) return found;
    const color = isNormal ? -1 : Math.max(-1, ...data.classes.map((one) => one.color)) + 1;
    return data.classes.push({ name, slot: isNormal ? name : null, color }) - 1;
  }

  const numberOf = (name) => {
    const bySlot = data.classes.findIndex(({ slot, slots }) => slot === name || slots?.includes(name));
    return bySlot >= 0 ? bySlot : classNamed(name);
  };

  // Images in which nothing was found have a field for their class.
  const images = [...document.querySelectorAll("[data-image]")];
  const tidy = (text) => text.trim().replace(/\s+/g, " ");
  const saidImages = () => images.filter(({ value, defaultValue }) => tidy(value) && tidy(value) !== defaultValue);
  const texts = () => images.map(({ value }) => value);
  let textsOfImages = texts(); // as they are now, for the next step back
  images.forEach((field) => field.addEventListener("change", () => {
    if (!tidy(field.value)) field.value = field.defaultValue; // what an earlier correction said can be changed alone
    remember();
    textsOfImages = texts();
    isSaved = false;
    showState();
  }));

  function nextName() {
    const numbers = [...data.slots, ...data.classes.map(({ name }) => name)].map((name) => /^class_(\d+)$/.exec(name));
    return `class_${1 + Math.max(0, ...numbers.map((match) => (match ? Number(match[1]) : 0)))}`;
  }

  function assignNew() {
    const field = byId("new-name");
    const name = tidy(field.value) || nextName();
    if (!selected.size) return;
    if (name.includes(";")) {
      tell(NO_SEPARATOR, true);
      return;
    }
    field.value = "";
    assign(classNamed(name));
  }

  function thumb(region, px) {
    const canvas = element("canvas", { width: px, height: px });
    drawCrop(canvas, region);
    const button = element("button", { type: "button", className: "thumb", title: data.images[data.imageOf[region]] }, canvas);
    button.dataset.region = region;
    button.setAttribute("aria-label", `Region of ${data.images[data.imageOf[region]]}`);
    return button;
  }

  const membersOf = (number) => data.classOf.flatMap((own, region) => (own === number ? [region] : []));

  function showGroups(card) {
    const { box, number, amount } = card;
    const groups = groupsOf(membersOf(number), Number(amount.value));
    box.replaceChildren(
      ...groups.map((group, i) => {
        const button = element("button", { type: "button", textContent: "Select all" });
        button.setAttribute("aria-label", `Select all of group ${i + 1}`);
        button.addEventListener("click", () => select(group, "only"));
        const head = element("p", {}, `Group ${i + 1}: ${group.length} region${group.length === 1 ? "" : "s"} `, button);
        return element("div", { className: "group" }, head, element("div", {}, ...group.slice(0, 10).map((one) => thumb(one, 64))));
      }),
    );
    showState();
  }

  document.querySelectorAll(".split").forEach((row) => {
    const card = { box: row.querySelector(".groups"), number: Number(row.dataset.class), amount: row.querySelector("select") };
    row.querySelector("details").addEventListener("toggle", (event) => event.target.open && showGroups(card));
    card.amount.addEventListener("change", () => showGroups(card));
    row.querySelector("button").addEventListener("click", () => select(membersOf(card.number), "only"));
  });

  // ------------------------------------------------------------ how many classes
  const slider = byId("cut-number");
  const hasNormal = original.some((number) => data.classes[number].color < 0);
  let cut = data.tree ? data.tree.count : null;

  function thumbsOf(regions) {
    const shown = regions.slice(0, 10).map((one) => thumb(one, 64));
    return element("div", { className: "group" }, element("p", {}, `${regions.length} regions`), element("div", {}, ...shown));
  }

  function showCut() {
    if (cut === null) return;
    const { count: now, merges, splits } = data.tree;
    slider.value = cut;
    byId("cut-value").textContent = `${cut} classes${hasNormal ? " with normal" : ""}${cut === now ? ", as found" : ""}`;
    const lines = merges
      .slice(0, Math.max(0, now - cut))
      .map(([one, other]) => element("p", {}, `${nameOfClass(other)} becomes part of ${nameOfClass(one)}`));
    const parts = data.classes.map((_, number) => original.flatMap((own, region) => (own === number ? [region] : [])));
    const names = data.classes.map((_, number) => nameOfClass(number));
    for (const { of, leaving } of splits.slice(0, Math.max(0, cut - now))) {
      const gone = new Set(leaving);
      parts[of] = parts[of].filter((region) => !gone.has(region));
      names.push(`the new part of ${names[of]}`);
      parts.push(leaving);
      lines.push(element("p", {}, `${names[of]} falls apart:`), thumbsOf(parts[of]), thumbsOf(leaving));
    }
    byId("cut-text").replaceChildren(...lines);
  }

  if (data.tree && data.tree.merges.length + data.tree.splits.length) {
    byId("cut").hidden = false;
    slider.min = data.tree.count - data.tree.merges.length;
    slider.max = data.tree.count + data.tree.splits.length;
    slider.addEventListener("input", () => {
      cut = Number(slider.value);
      isSaved = false;
      showCut();
      showState();
    });
  }

  // ------------------------------------------------------------- the selection
  function select(regions, how) {
    if (how === "only") selected.clear();
    for (const region of regions) {
      if (how === "toggle" && selected.has(region)) selected.delete(region);
      else selected.add(region);
    }
    drawRing();
    showState();
  }
  whenSelected(select);
  nameClassesBy(nameOfClass);

  byId("first").replaceChildren(
    ...data.first.map((region) => element("figure", { className: "tile" }, thumb(region, 160), element("figcaption"))),
  );

  document.querySelectorAll("figure[data-region] img").forEach((picture) => {
    const { region } = picture.parentElement.dataset;
    const button = element("button", { type: "button", className: "thumb" });
    button.dataset.region = region;
    button.title = picture.title;
    button.setAttribute("aria-label", picture.alt);
    picture.replaceWith(button);
    button.append(picture);
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.thumb");
    if (button) select([Number(button.dataset.region)], "toggle");
  });

  const phrase = (region) => {
    const word = said.get(region);
    if (word?.not !== undefined) return `not ${nameOfClass(word.not)}`;
    if (word) return `${word.to === original[region] ? "✓" : "→"} ${nameOfClass(word.to)}`;
    return kept.has(region) ? "✓ corrected" : "";
  };

  function showTiles() {
    document.querySelectorAll("button.thumb").forEach((button) => {
      const region = Number(button.dataset.region);
      button.setAttribute("aria-pressed", String(selected.has(region)));
      button.dataset.said = phrase(region);
      const caption = button.closest("#first .tile")?.querySelector("figcaption");
      if (caption) {
        caption.replaceChildren(
          element("span", { textContent: data.images[data.imageOf[region]] }),
          element("span", { textContent: phrase(region) || nameOfClass(data.classOf[region]) }),
        );
      }
    });
  }

  function showChoices() {
    const number = selected.size;
    byId("selection").hidden = number === 0;
    byId("selection-count").textContent = `${number} region${number === 1 ? "" : "s"} selected:`;
    byId("selected").replaceChildren(
      ...[...selected].slice(-MOST_THUMBS).map((region) => thumb(region, 48)),
      ...(number > MOST_THUMBS ? [element("span", { textContent: `and ${number - MOST_THUMBS} more` })] : []),
    );
    const own = new Set([...selected].map((region) => original[region]));
    byId("choices").replaceChildren(
      ...defects().map((index, place) => {
        const swatch = element("span", { className: "swatch" });
        swatch.style.background = colorOf(index);
        const key = place < 9 ? [element("kbd", { textContent: place + 1 })] : [];
        const button = element("button", { type: "button" }, swatch, nameOfClass(index), ...key);
        button.addEventListener("click", () => assign(index));
        return button;
      }),
    );
    byId("not-this").textContent =
      own.size === 1 ? `Not ${nameOfClass([...own][0])}, but I don't know what` : "Not the class it has, but I don't know what";
  }

  // ------------------------------------------------------------------- the file
  function tell(text, isWrong = false) {
    const status = byId("save-status");
    status.textContent = text;
    status.classList.toggle("wrong", isWrong);
  }

  function summary() {
    const wanted = namesToSave();
    const number = said.size + saidImages().length;
    const named = Object.keys(wanted.names).length;
    const merged = wanted.same.map((group) => group.join(" = ")).join("; ");
    const parts = [
      number ? `${number} corrected` : "",
      named ? `${named} named` : "",
      merged ? `same: ${merged}` : "",
      cut !== null && cut !== data.tree.count ? `${cut} classes` : "",
    ];
    return parts.filter(Boolean).join(", ") || "Nothing";
  }

  function showState() {
    showChoices();
    showTiles();
    byId("undo").disabled = past.length === 0;
    byId("class-names")?.replaceChildren(...defects().map((number) => element("option", { value: nameOfClass(number) })));
    const problem = mistake(namesToSave()) || (saidImages().some(({ value }) => value.includes(";")) ? NO_SEPARATOR : "");
    document.querySelector(".save").classList.toggle("changed", !isSaved);
    if (problem) tell(problem, true);
    else if (!isSaved) tell(`${summary()}; not saved yet.`);
  }

  function update() {
    rows.forEach(({ input, select: choice }, slot) => {
      input.disabled = Boolean(choice.value);
      input.placeholder = choice.value ? nameOfSlot(slot) : slot;
    });
    document.querySelectorAll("[data-name-of]").forEach((heading) => {
      heading.textContent = nameOfSlot(heading.dataset.nameOf);
    });
    isSaved = false;
    refresh();
    showState();
  }

  const wordFor = (number) => {
    const { slot, name } = data.classes[number];
    return slot ?? name;
  };

  function contents() {
    const regions = [...said].map(([region, word]) => ({
      image: data.images[data.imageOf[region]],
      box: data.boxes[region],
      ...(word.not === undefined ? { class: wordFor(word.to) } : { not: [wordFor(word.not)] }),
    }));
    for (const { value, dataset } of saidImages()) {
      regions.push({ image: data.images[dataset.image], class: wordFor(classNamed(tidy(value))) });
    }
    const number = cut !== null && cut !== data.tree.count ? { num_classes: cut } : {};
    return { ...namesToSave(), ...(regions.length ? { regions } : {}), ...number, of: data.of };
  }

  function save() {
    const wanted = contents();
    const problem = mistake(wanted);
    if (problem) {
      tell(problem, true);
      return;
    }
    const text = `${JSON.stringify(wanted, null, 1)}\n`;
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
    link.download = "corrections.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    isSaved = true;
    showState();
    const quoted = (name) => (/^[\w.-]+$/.test(name) ? name : `"${name}"`);
    const command = wanted.regions || wanted.num_classes
      ? `anomalib-ncd refine ${quoted(data.run)} --corrections ~/Downloads/corrections.json --output ${quoted(`${data.run}_refined`)}`
      : `anomalib-ncd name ${quoted(data.run)} --names ~/Downloads/corrections.json`;
    byId("save-status").replaceChildren(
      `Saved among your downloads; a second file may be called corrections (1).json. Next, where ${data.run} lies: `,
      element("code", { textContent: command }),
    );
  }

  function load(text) {
    const found = JSON.parse(text);
    const regionAt = new Map();
    for (let region = 0; region < count; region += 1) {
      regionAt.set(`${data.images[data.imageOf[region]]} ${data.boxes[region]}`, region);
    }
    // A run's own corrections.json has no names: those of the report stay.
    if (found.names || found.same) {
      rows.forEach(({ input, select: choice }, slot) => {
        input.value = found.names?.[slot] ?? "";
        choice.value = "";
      });
    }
    for (const [first, ...others] of found.same ?? []) {
      for (const slot of others) if (rows.has(slot)) rows.get(slot).select.value = first;
    }
    remember();
    said = new Map();
    if (data.tree) cut = found.num_classes ?? data.tree.count;
    images.forEach((field) => (field.value = field.defaultValue));
    let lost = 0;
    for (const one of found.regions ?? []) {
      const field = one.box ? undefined : images.find(({ dataset }) => data.images[dataset.image] === one.image);
      if (field) {
        field.value = nameOfClass(numberOf(one.class));
        continue;
      }
      const region = regionAt.get(`${one.image} ${one.box}`);
      if (region === undefined) lost += 1;
      else said.set(region, one.class === undefined ? { not: original[region] } : { to: numberOf(one.class) });
    }
    textsOfImages = texts();
    apply();
    update();
    showCut();
    isSaved = true;
    showState();
    tell(lost ? `${lost} corrections speak of regions or images that this report doesn't show; they aren't saved again.` : `${summary()}; loaded, nothing has changed since.`, lost > 0);
  }

  byId("load").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    try {
      load(await file.text());
    } catch (error) {
      tell(`${file.name} is no file of corrections (${error.message}).`, true);
    }
  });
  byId("load-button").addEventListener("click", () => byId("load").click());
  byId("save").addEventListener("click", save);
  byId("undo").addEventListener("click", undo);
  byId("new-class").addEventListener("click", assignNew);
  byId("new-name").addEventListener("keydown", (event) => event.key === "Enter" && assignNew());
  byId("as-normal").addEventListener("click", assignNormal);
  byId("not-this").addEventListener("click", () => say([...selected], { not: true }));
  byId("more").addEventListener("click", () => select(alike([...selected].at(-1), ALIKE, (one) => selected.has(one) || said.has(one)), "add"));
  byId("clear").addEventListener("click", () => select([], "only"));

  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select") || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
    else if (event.ctrlKey || event.metaKey) return;
    else if (event.key === "Escape" && selected.size) select([], "only");
    else if (selected.size && /^[1-9]$/.test(event.key) && event.key <= defects().length) assign(defects()[event.key - 1]);
    else if (selected.size && event.key === "n") byId("new-name").focus();
    else return;
    event.preventDefault();
  });

  window.addEventListener("beforeunload", (event) => !isSaved && said.size + saidImages().length && event.preventDefault());

  rows.forEach(({ input, select: choice }, slot) => {
    input.addEventListener("input", update);
    choice.addEventListener("change", () => {
      // A class can't be the same as one that was said to be the same as it.
      for (let next = choice.value; next; next = sameAs(next)) {
        if (sameAs(next) === slot) rows.get(next).select.value = "";
      }
      update();
    });
    if (choice.value) input.disabled = true;
  });
  refresh();
  showCut();
  tell("Name classes, click regions that are in a wrong one and say what they are; then save.");
  showState();
})();
