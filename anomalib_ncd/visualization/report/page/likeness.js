"use strict";
// Which regions are alike, by the few numbers that the page has of each.
const likeness = (() => {
  const { data, count } = report;
  const { dimensions } = data;
  const rows = Int8Array.from(atob(data.likeness), (letter) => letter.charCodeAt(0));
  const rowOf = (region) => rows.subarray(region * dimensions, (region + 1) * dimensions);

  function distance(one, other) {
    let sum = 0;
    for (let i = 0; i < dimensions; i += 1) sum += (one[i] - other[i]) ** 2;
    return sum;
  }

  function alike(region, amount, isTaken) {
    const own = rowOf(region);
    const others = [];
    for (let other = 0; other < count; other += 1) {
      if (other !== region && !isTaken(other)) others.push([distance(own, rowOf(other)), other]);
    }
    return others.sort((a, b) => a[0] - b[0]).slice(0, amount).map(([, other]) => other);
  }

  // k-means from the farthest points on; the largest group comes first.
  function groupsOf(regions, amount) {
    const mean = (group) => {
      const sum = new Float64Array(dimensions);
      group.forEach((region) => rowOf(region).forEach((value, i) => (sum[i] += value / group.length)));
      return sum;
    };
    const centres = [mean(regions)];
    const nearest = (region) => Math.min(...centres.map((centre) => distance(rowOf(region), centre)));
    for (let i = 0; i < amount; i += 1) {
      const far = regions.reduce((best, region) => (nearest(region) > nearest(best) ? region : best), regions[0]);
      if (i === 0) centres.pop();
      centres.push(Float64Array.from(rowOf(far)));
    }
    let groups = [];
    for (let step = 0; step < 12; step += 1) {
      groups = centres.map(() => []);
      for (const region of regions) {
        const distances = centres.map((centre) => distance(rowOf(region), centre));
        groups[distances.indexOf(Math.min(...distances))].push(region);
      }
      groups.forEach((group, i) => group.length && (centres[i] = mean(group)));
    }
    groups.forEach((group, i) => group.sort((a, b) => distance(rowOf(a), centres[i]) - distance(rowOf(b), centres[i])));
    return groups.filter((group) => group.length).sort((a, b) => b.length - a.length);
  }

  return { alike, groupsOf };
})();
