/** The command as a user runs it: ready, planning, shown on its port, gone on SIGTERM; mistakes are one line. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, writeFileSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, it } from "vitest"
import { PlayedEngine } from "../planner-process/testing.ts"

const MAIN = join(import.meta.dirname, "main.ts")
const folder = mkdtempSync(join(tmpdir(), "slos-serve-planner-"))
const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL")
})

/** What is learnt of an engine is kept for the next one like it, elsewhere. */
const env = { ...process.env, SLOS_SERVE_CACHE: folder }

let paths = 0
async function start(...args: string[]) {
  const path = join(folder, `${++paths}.sock`)
  const child = spawn(process.execPath, [MAIN, "planner", "--socket", path, ...args], { env })
  children.push(child)
  let text = ""
  child.stdout!.on("data", (piece: Buffer) => (text += piece))
  child.stderr!.on("data", (piece: Buffer) => (text += piece))
  await expect.poll(() => text).toContain('"msg":"ready"')
  const ready = JSON.parse(text.split("\n").find((line) => line.includes('"ready"'))!)
  const stopped = new Promise((resolve) => child.once("exit", resolve))
  return { path, child, ready: ready as { socket: string; page: string | null }, said: () => text, stopped }
}

const cli = (...args: string[]) =>
  spawnSync(process.execPath, [MAIN, "planner", ...args], { encoding: "utf8" })

it("plans for an engine, shows what it keeps, says goodbye, and its recording is made again", async () => {
  const recording = join(folder, "all.rec")
  const { path, child, ready, said, stopped } = await start("--metrics-port", "0", "--record", recording)
  const get = async (where: string) => fetch(new URL(where, ready.page!))
  expect((await get("/health")).status).toBe(200)
  expect((await get("/ready")).status).toBe(503)
  const engine = new PlayedEngine({ name: "vllm-0" })
  await engine.connect(path)
  for (let i = 0; i < 5; i++) engine.add({ slo: { slo_class: "chat", slo_tenant: "ann" } })
  engine.add({ slo: { slo_clas: "chat" } })
  await engine.run()
  await engine.step()
  expect(engine.misfits).toEqual([])
  expect(engine.steps.engine).toBe(0)
  expect((await get("/ready")).status).toBe(200)
  const metrics = await (await get("/metrics")).text()
  expect(metrics).toMatch(/slos_serve_engine_steps_total\{engine="vllm-0",by="plan"\} \d/)
  expect(metrics).toMatch(/slos_serve_requests_total\{class="chat",attained="true"\} 6/)
  expect(metrics).toMatch(/slos_serve_slo_argument_mistakes_total\{engine="vllm-0",kind="unknown"\} 1/)
  expect(metrics).toMatch(/slos_serve_tenant_requests_total\{tenant="ann",attained="true"\} 5/)
  expect(metrics).toMatch(/slos_serve_replica_up\{replica="vllm-0"\} 1/)
  const status = (await (await get("/v1/slo/status")).json()) as { model: object; replicas: object[] }
  expect(status).toMatchObject({ model: { name: "tiny" }, replicas: [{ name: "vllm-0", state: "ready" }] })
  const body = JSON.stringify({ messages: [{ role: "user", content: "hi" }] })
  const headers = { "content-type": "application/json" }
  const asked = await fetch(new URL("/v1/chat/completions", ready.page!), { method: "POST", body, headers })
  expect(asked.status).toBe(404)
  expect(await asked.text()).toContain("This is a planner")
  child.kill("SIGTERM")
  expect(await stopped).toBe(0)
  expect(said()).toContain("vllm_xargs.slo_clas': is not a known argument")
  expect(existsSync(path)).toBe(false)
  expect(engine.said.at(-1)).toEqual({ type: "goodbye", message: "the planner is being shut down" })
  const replayed = cli("replay", recording)
  expect(replayed.stdout).toMatch(/^all \d+ plans are the same \(1 engine, \d+ events, by slos-serve /)
  expect(replayed.status).toBe(0)
})

it("ends by itself when it is told to and no engine comes", async () => {
  const { stopped, said } = await start("--exit-when-idle", "1")
  expect(await stopped).toBe(0)
  expect(said()).toContain("no engine for 1 s")
})

const file = join(folder, "file")
writeFileSync(file, "no planner")
it.each([
  [[], /--socket is missing/],
  [["--socket", file], /a file that is no socket/],
  [["--socket", "s", "--policy", "best"], /--policy <name>' argument 'best' is invalid/],
  [["--socket", "s", "--set", "margin=x"], /--set margin=x: margin is a number from 0 to 10/],
  [["--socket", "s", "--config", "none.yaml"], /cannot read the config none.yaml \(ENOENT\)/],
  [["--socket", "s", "--record", "/"], /cannot write \/ \(EISDIR\)/],
  [["replay", file], /no recording of a planner: .*make one with slos-serve planner --record/],
  [["replay", folder], /cannot be read \(EISDIR\)/],
])("%j is one line", (args, says) => {
  const { status, stderr, stdout } = cli(...args)
  expect(status).toBe(2)
  expect(stderr.trim().split("\n")[0]).toMatch(says)
  expect(stderr + stdout).not.toMatch(/ at .*\.ts:/)
})

it("a port that is taken is one line that names the option, and leaves no socket", async () => {
  const taken = createServer().listen(0, "127.0.0.1")
  await once(taken, "listening")
  const { port } = taken.address() as AddressInfo
  const path = join(folder, "taken.sock")
  const { status, stderr } = cli("--socket", path, "--metrics-port", String(port))
  taken.close()
  expect(status).toBe(2)
  expect(stderr).toMatch(/port \d+ on 127.0.0.1 is already in use; .* another with --metrics-port\n$/)
  expect(existsSync(path)).toBe(false)
})
