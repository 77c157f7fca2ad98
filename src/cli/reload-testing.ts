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
  /** The first whole line of the log with that, from there on. */
  const line = async (what: string, from = 0) => {
    const found = () =>
      text
        .slice(from, text.lastIndexOf("\n"))
        .split("\n")
        .find((one) => one.includes(what))
    await expect.poll(found, { message: `${what} in ${text}` }).toBeDefined()
    return JSON.parse(found()!) as { url: string; msg: string }
  }
  const { url } = await line('"msg":"ready"')
  const hup = async () => {
    const from = text.length
    child.kill("SIGHUP")
    return (await line("SIGHUP", from)).msg
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
