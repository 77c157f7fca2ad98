/** A real server for tests of what it does at SIGHUP. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect } from "vitest"
import { digestOf } from "../config/api-keys.ts"

export const MAIN = new URL("./main.ts", import.meta.url).pathname
export const folder = mkdtempSync(join(tmpdir(), "slos-serve-reload-"))
const running = new Set<ChildProcess>()
afterAll(() => {
  for (const child of running) child.kill("SIGKILL")
  rmSync(folder, { recursive: true, force: true })
})

export const serve = (...args: string[]) => start("--engine", "fake", ...args)

export async function start(...args: string[]) {
  const child = spawn(process.execPath, [MAIN, "serve", "--port", "0", ...args], {
    ...{ stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1" } },
  })
  running.add(child)
  const exit = once(child, "close").then(([code]) => {
    running.delete(child)
    return code as number
  })
  let text = ""
  child.stdout!.on("data", (piece) => (text += piece))
  child.stderr!.on("data", (piece) => (text += piece))
  await expect.poll(() => text, { timeout: 30_000 }).toContain('"msg":"ready"')
  const { url } = JSON.parse(text.split("\n").find((line) => line.includes('"msg":"ready"'))!) as {
    url: string
  }
  const hup = async () => {
    const from = text.length
    child.kill("SIGHUP")
    await expect.poll(() => text.slice(from), { timeout: 10_000 }).toContain("SIGHUP")
    const line = text
      .slice(from)
      .split("\n")
      .find((one) => one.includes("SIGHUP"))!
    return (JSON.parse(line) as { msg: string }).msg
  }
  return { child, url, exit, hup, said: () => text }
}

export const HEADERS = { "content-type": "application/json" }
export const by = (key: string) => ({ authorization: `Bearer ${key}` })

export const complete = (url: string, key: string, body: object = {}) =>
  fetch(`${url}/v1/completions`, {
    ...{ method: "POST", headers: { ...HEADERS, ...by(key) } },
    body: JSON.stringify({ prompt: "hi", max_tokens: 3, ...body }),
  })

/** Keys of two names, as a file has them. */
export const keys = (...names: string[]) =>
  `keys:\n${names.map((name) => `  ${name}: {hash: "sha256:${digestOf(`sk-${name}`)}"}\n`).join("")}`
