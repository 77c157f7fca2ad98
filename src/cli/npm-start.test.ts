/** `npm start`: signals reach the server through npm and its shell, and one that a terminal sends to all of them counts once. */
import { type ChildProcess, spawn } from "node:child_process"
import { resolve } from "node:path"
import { afterEach, expect, test } from "vitest"

const ROOT = resolve(import.meta.dirname, "../..")
let npm: ChildProcess | null = null
afterEach(() => {
  try {
    process.kill(-npm!.pid!, "SIGKILL")
  } catch {
    // All of the group has ended.
  }
})

interface Started {
  url: string
  pid: number
  out: () => string
  exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/** In a process group of its own, as a shell starts it. */
async function started(): Promise<Started> {
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined, npm_config_loglevel: undefined }
  const child = spawn("npm", ["start", "--", "--engine", "fake", "--port", "0"], {
    cwd: ROOT,
    env,
    detached: true,
  })
  npm = child
  let out = ""
  child.stderr.on("data", (data) => (out += data))
  const exit = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((done) =>
    child.on("close", (code, signal) => done({ code, signal })),
  )
  const ready = await new Promise<{ url: string; pid: number }>((found, failed) => {
    child.stdout.on("data", (data) => {
      out += data
      const line = out.split("\n").find((one) => one.includes('"msg":"ready"'))
      if (line !== undefined) found(JSON.parse(line))
    })
    void exit.then(() => failed(new Error(out)))
  })
  return { ...ready, out: () => out, exit }
}

/** Its first token is here when this resolves; `rest` is all of it. */
async function streaming(url: string): Promise<{ rest: Promise<string> }> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "hi", max_tokens: 300, ignore_eos: true, stream: true }),
  })
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  const first = (await reader.read()).value ?? ""
  const rest = async () => {
    let text = first
    for (let read = await reader.read(); !read.done; read = await reader.read()) text += read.value
    return text
  }
  return { rest: rest() }
}

const gone = (pid: number) => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

test("SIGTERM to npm alone drains the server, and leaves no process behind", async () => {
  const { url, pid, out, exit } = await started()
  const { rest } = await streaming(url)
  npm!.kill("SIGTERM")
  expect(await rest).toMatch(/"finish_reason":"length"[\s\S]*\[DONE\]/)
  await exit
  expect(out()).toContain('"msg":"stopped"')
  await expect.poll(() => gone(pid)).toBe(true)
})

test("Ctrl+C comes to the server twice, from the terminal and from npm, and drains it", async () => {
  const { url, out, exit } = await started()
  const { rest } = await streaming(url)
  process.kill(-npm!.pid!, "SIGINT")
  expect(await rest).toMatch(/"finish_reason":"length"[\s\S]*\[DONE\]/)
  expect((await exit).code).toBe(0)
  expect(out()).toContain('"msg":"stopped"')
  expect(out()).not.toContain("stopping at once")
})
