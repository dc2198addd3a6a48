// A long table in a box that scrolls: only the pages in sight are rows of the document, the others are room.
// In: a table with its first page, how many rows there are, and what fetches a page. Without it the table is paged.

const APART = 1;  // pages kept ready above and below those in sight

function room(table, place) {
  const body = document.createElement("tbody");
  body.setAttribute("aria-hidden", "true");
  const row = body.insertRow();
  row.insertCell().colSpan = table.tHead.rows[0].cells.length;
  row.cells[0].className = "room";
  table[place](body);
  return row.cells[0];
}

export function scrollRows(box, { nRows, pageSize, page, fetchPage, shown, top = 0 }) {
  const table = box.querySelector("table");
  const first = table.tBodies[0];
  const height = first.rows[0].getBoundingClientRect().height;
  const nPages = Math.ceil(nRows / pageSize);
  const pages = new Map([[page, first]]), asked = new Set([page]);
  box.classList.add("rows");
  table.setAttribute("aria-rowcount", nRows + 1);
  for (const cell of table.tHead.rows[0].cells) cell.style.minWidth = `${cell.getBoundingClientRect().width}px`;
  first.remove();
  const above = room(table, "append"), below = room(table, "append");
  const size = (number) => Math.min(pageSize, nRows - (number - 1) * pageSize);

  function number(body, ofPage) {
    [...body.rows].forEach((row, place) => row.setAttribute("aria-rowindex", (ofPage - 1) * pageSize + place + 2));
  }

  function lay() {
    const head = table.tHead.getBoundingClientRect().height;
    const from = Math.max(0, box.scrollTop / height), to = (box.scrollTop + box.clientHeight - head) / height;
    const begin = Math.max(1, Math.floor(from / pageSize) + 1 - APART), end = Math.min(nPages, Math.floor(to / pageSize) + 1 + APART);
    for (let one = begin; one <= end; one += 1) ask(one);
    const wanted = [];
    for (let one = begin; one <= end; one += 1) {
      let body = pages.get(one);
      if (!body) {  // on its way: as much room as it will take
        body = document.createElement("tbody");
        const cell = body.insertRow().insertCell();
        cell.className = "room";
        cell.textContent = "Loading…";
        cell.style.height = `${size(one) * height}px`;
      }
      number(body, one);
      wanted.push(body);
    }
    const present = [...table.tBodies].slice(1, -1);
    if (present.length !== wanted.length || present.some((body, place) => body !== wanted[place])) {
      present.forEach((body) => body.remove());
      wanted.forEach((body) => below.closest("tbody").before(body));
    }
    above.style.height = `${(begin - 1) * pageSize * height}px`;
    below.style.height = `${Math.max(0, nRows - end * pageSize) * height}px`;
    shown(Math.min(nRows, Math.floor(from) + 1), Math.max(1, Math.min(nRows, Math.floor(to))));
  }

  function ask(one) {
    if (asked.has(one)) return;
    asked.add(one);
    fetchPage(one).then((body) => { pages.set(one, body); lay(); }, () => asked.delete(one));
  }

  let isDue = false;
  box.addEventListener("scroll", () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => { isDue = false; lay(); });
  }, { passive: true });
  above.style.height = `${(page - 1) * pageSize * height}px`;
  below.style.height = `${nRows * height}px`;  // room to scroll to where it was
  box.scrollTop = top || (page - 1) * pageSize * height;
  lay();
}
