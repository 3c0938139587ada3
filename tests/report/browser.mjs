// Opens pages as a reader does, and prints what was seen as JSON.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [file, notebook, pdf, modules] = process.argv.slice(2);
const axe = readFileSync(`${modules}/axe-core/axe.min.js`, "utf8");
const rules = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const seen = { noise: [], requests: [], axe: [], sideways: [] };

const open = async (path, options) => {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("console", (message) => seen.noise.push(message.text()));
  page.on("pageerror", (error) => seen.noise.push(error.message));
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.goto(`file://${path}`);
  return page;
};
const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

for (const path of [file, notebook]) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [400, 1400]) {
      // A notebook's table is wide in one of them, and dark in the other.
      if (path === notebook && (width === 400) !== (colorScheme === "light")) continue;
      const page = await open(path, { colorScheme, viewport: { width, height: 900 } });
      const where = `${path === file ? "page" : "notebook"} ${colorScheme} ${width}`;
      if (await wide(page)) seen.sideways.push(where);
      await page.evaluate(() => {
        for (const each of document.querySelectorAll("details")) each.open = true;
      });
      if (await wide(page)) seen.sideways.push(`${where}, opened`);
      // Some of each kind, for it looks at every cell.
      await page.evaluate(() => {
        for (const each of [...document.querySelectorAll("details")].slice(12)) each.open = false;
        for (const each of document.querySelectorAll("details.layer:nth-of-type(2)")) {
          each.open = true;
        }
      });
      await page.evaluate(axe);
      const found = await page.evaluate(
        (values) => window.axe.run(document, { runOnly: { type: "tag", values } }), rules);
      for (const { id, nodes } of found.violations) {
        seen.axe.push(`${where}: ${id}: ${nodes[0].html.slice(0, 200)}`);
      }
      await page.context().close();
    }
  }
}

const page = await open(file, { viewport: { width: 1200, height: 900 }, acceptDownloads: true });
seen.hacked = await page.evaluate(() => window.hacked ?? false);
seen.scripts = await page.evaluate(() => document.scripts.length);
seen.figures = await page.evaluate(() => [...document.querySelectorAll("figure")].map((each) => ({
  caption: each.querySelector("figcaption")?.textContent,
  numbers: each.querySelectorAll("details table td").length,
  image: each.querySelector("img")?.alt,
  titled: each.querySelector("svg")?.getAttribute("role") === "img" &&
    Boolean(each.querySelector("svg > title")?.textContent),
})));
const column = (index) => page.evaluate((i) => {
  const rows = [...document.querySelector("section:has(#result-1) .rows table").tBodies[0].rows];
  return rows.filter((row) => !row.hidden).map((row) => row.cells[i].textContent);
}, index);
const layers = page.locator("section:has(#result-1)");
const heads = layers.locator(".rows").first().locator("th button");
// By the keyboard alone: to the head of the fifth column, then Enter twice.
for (let i = 0; i < 99; i += 1) {
  await page.keyboard.press("Tab");
  if (await heads.nth(3).evaluate((head) => head === document.activeElement)) break;
}
seen.focus = await heads.nth(3).evaluate((head) => getComputedStyle(head).outlineStyle);
await page.keyboard.press("Enter");
seen.ascending = await column(4);
await page.keyboard.press("Enter");
seen.descending = await column(4);
seen.sort = await page.locator("[aria-sort]").first().getAttribute("aria-sort");
await layers.locator("input[type=search]").first().fill("block CONV2");
seen.filtered = await column(1);
seen.counted = await layers.locator("[role=status]").first().textContent();
await layers.locator("input[type=search]").first().fill("");
await layers.locator(".rows td a").first().click();
await page.waitForTimeout(100);
seen.opened = await page.evaluate(() => document.querySelectorAll("details.layer[open]").length);
const drawing = page.locator("details.layer[open] svg[data-x]").first();
await drawing.hover();
await drawing.hover({ position: { x: 200, y: 80 } });
seen.hover = await page.locator(".hover:visible").allTextContents();
seen.downloads = {};
for (const name of ["JSON", "CSV"]) {
  const waiting = page.waitForEvent("download");
  await page.locator("a[download]", { hasText: name }).first().click();
  const download = await waiting;
  seen.downloads[download.suggestedFilename()] = readFileSync(await download.path(), "utf8");
}
await page.pdf({ path: pdf, format: "A4" });

const plain = await open(file, { javaScriptEnabled: false });
seen.plain = await plain.locator("body").innerText();
seen.buttons = await plain.locator("button").count();
const book = await open(notebook, {});
seen.notebook = await book.locator("th button").count();
await browser.close();
console.log(JSON.stringify(seen));
