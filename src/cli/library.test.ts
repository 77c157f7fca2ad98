/** What a user is told of the library; that it is compiled and taken is tested in engine/llama/built.test.ts. */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, test } from "vitest"

const MAIN = new URL("./main.ts", import.meta.url).pathname
const cache = mkdtempSync(join(tmpdir(), "slos-serve-library-"))
const env = { ...process.env, SLOS_SERVE_CACHE: cache, NO_COLOR: "1" }
afterAll(() => rmSync(cache, { recursive: true, force: true }))

const cli = (...args: string[]) =>
  spawnSync(process.execPath, [MAIN, "library", ...args], { env, encoding: "utf8" })

describe.skipIf(process.platform !== "linux")("a library for this processor", () => {
  test("is not there at first: which one is taken, and what cannot be done with none", {
    timeout: 60_000,
  }, () => {
    expect(cli().stdout).toMatch(/^llama\.cpp [\d.]+, prebuilt: .*node-llama-cpp/)
    for (const [args, why] of [
      [["compare"], /no library was built for this processor; run: slos-serve library build/],
      [["remove"], /no library was built for this processor/],
      [["make"], /unknown command 'library make'; known: show, build, compare, remove/],
      [
        ["build", "--source", join(cache, "none")],
        /cmake could not configure the build|needs .*which this machine lacks/,
      ],
    ] as const) {
      const { status, stderr } = cli(...args)
      expect(stderr).toMatch(why)
      expect(status).toBe(2)
    }
  })

  test("is spoken of in one line by a server that has none", { timeout: 120_000 }, async () => {
    const args = ["serve", "--model", "tiny", "--port", "0", "--no-profile", "--threads", "1"]
    const child = spawn(process.execPath, [MAIN, ...args], { env, stdio: ["ignore", "pipe", "pipe"] })
    let text = ""
    child.stdout.on("data", (piece) => (text += piece))
    await expect.poll(() => text, { timeout: 90_000 }).toContain('"msg":"ready"')
    child.kill("SIGTERM")
    await once(child, "close")
    const lines = text.split("\n").filter((line) => line.includes("library build"))
    expect(lines).toHaveLength(1)
    expect(JSON.parse(lines[0]!).msg).toBe(
      "llama.cpp is the prebuilt one; compiled for this processor it may be faster: slos-serve library build measures it",
    )
  })
})
