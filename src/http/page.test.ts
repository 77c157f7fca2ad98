/** The page in a real browser, where one is found (CHROMIUM_PATH or the usual places). */
import { existsSync } from "node:fs"
import { type Browser, chromium } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { testServer } from "./testing.ts"

const browserPath = [
  process.env.CHROMIUM_PATH,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
].find((path) => path !== undefined && existsSync(path))
if (browserPath === undefined)
  console.log("page.test.ts: no Chromium found; set CHROMIUM_PATH to test the page")

describe.skipIf(browserPath === undefined)("the page", () => {
  let server: Awaited<ReturnType<typeof testServer>>
  let browser: Browser

  beforeAll(async () => {
    server = await testServer({
      listen: true,
      fake: { script: () => "<think>\nhm\n</think>\n\nA & <b>bold</b> answer" },
    })
    browser = await chromium.launch({
      executablePath: browserPath!,
      // In one process it dies with its first page.
      args: ["--no-sandbox", "--disable-gpu"],
    })
  })
  afterAll(async () => {
    await browser?.close()
    await server?.close()
  })

  it("chats, shows the verdict and live attainment, and fits wide and narrow windows", async () => {
    const page = await browser.newPage({ viewport: { width: 1200, height: 800 } })
    const problems: string[] = []
    page.on("pageerror", (error) => problems.push(String(error)))
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
    await page.goto(server.url)
    await page.waitForSelector("#class option", { state: "attached" })
    expect(await page.textContent("#model")).toMatch(/^fake · policy slos-serve/)
    expect(await page.textContent("#curl")).toContain(`curl ${server.url}/v1/chat/completions`)
    expect(JSON.parse(/ -d .(\{.*\})./s.exec((await page.textContent("#curl"))!)![1]!)).toHaveProperty("slo")
    await page.selectOption("#class", "reasoning")
    await page.fill("#text", "hello")
    await page.keyboard.press("Enter")
    await page.waitForSelector(".verdict")
    expect(await page.textContent(".bot > span")).toBe("A & <b>bold</b> answer")
    expect(await page.textContent(".bot details div")).toBe("hm\n")
    expect(await page.textContent(".verdict")).toMatch(/reasoning: first token .* · SLO (met|missed)/)
    const row = page.locator("#classes tr").filter({ hasText: "reasoning" })
    await expect.poll(() => row.textContent()).toMatch(/\d%/)
    expect(await page.textContent("#banner")).toContain("random")
    await page.click("#clear")
    await page.click("#starters button")
    await page.waitForSelector(".verdict")
    await page.click("#burst")
    const chat = page.locator("#classes tr").filter({ hasText: "chat" }).locator("td.n")
    await expect.poll(() => chat.textContent()).toMatch(/^6/)
    expect(await page.getAttribute("#ran", "points")).toMatch(/^\d+,\d/)
    for (const width of [1200, 800, 380]) {
      await page.setViewportSize({ width, height: 800 })
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width)
    }
    const answer = await server.app.inject({
      ...{ method: "POST", url: "/v1/completions" },
      payload: { prompt: "hi", max_tokens: 4, slo: { ttft_ms: 1, tpot_ms: 0.01 } },
    })
    const missed = page.locator("#missed tr").filter({ hasText: String(answer.headers["x-request-id"]) })
    await expect.poll(() => missed.textContent()).toMatch(/late by its TTFT/)
    await page.setViewportSize({ width: 380, height: 800 })
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(380)
    expect(await page.isVisible("#tenantcard")).toBe(false)
    expect(await page.isVisible("#key")).toBe(false)
    expect(problems).toEqual([])
  })

  it("shows tenants, and takes a key where one is needed", async () => {
    const keyed = await testServer({
      listen: true,
      tenancy: {
        tenants: [
          { name: "alice", weight: 3, keys: ["sk-a"] },
          { name: `bob-${"x".repeat(100)}`, weight: 1, keys: ["sk-b"] },
        ],
      },
    })
    const page = await browser.newPage({ viewport: { width: 380, height: 800 } })
    await page.goto(keyed.url)
    await page.waitForSelector("#key")
    expect(await page.textContent("#curl")).toContain('-H "authorization: Bearer $KEY"')
    expect(await page.locator("#tenants tr").count()).toBe(2)
    await page.fill("#text", "hello")
    await page.keyboard.press("Enter")
    await page.waitForSelector(".verdict.bad")
    expect(await page.textContent(".verdict.bad")).toContain("wants an API key")
    await page.fill("#key", "sk-a")
    await page.fill("#text", "hello")
    await page.focus("#text")
    await page.keyboard.press("Enter")
    await page.waitForSelector(".verdict:not(.bad)")
    const row = page.locator("#tenants tr").filter({ hasText: "alice" })
    await expect.poll(() => row.locator("td").nth(3).textContent()).toBe("1")
    expect(await row.locator("td").first().textContent()).toBe("aliceweight 3")
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(380)
    await keyed.close()
  })

  it("asks for a key where the figures themselves want one", async () => {
    const guarded = await testServer({
      listen: true,
      protect: ["status"],
      tenancy: { tenants: [{ name: "alice", weight: 1, keys: ["sk-a"] }] },
    })
    const page = await browser.newPage()
    await page.goto(guarded.url)
    await page.waitForSelector("#key")
    expect(await page.textContent("#banner")).toContain("wants an API key")
    expect(await page.locator("#classes tr").count()).toBe(0)
    await page.fill("#key", "sk-a")
    await page.waitForSelector("#classes tr")
    expect(await page.textContent("#banner")).not.toContain("wants an API key")
    await guarded.close()
  })
})
