/** What systemd is told, heard by a socket of Python's as systemd's is: it has datagrams within a machine. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { Systemd } from "./systemd.ts"

const heard = spawnSync("python3", ["--version"]).status === 0 && process.platform === "linux"
if (!heard) console.log("there is no Linux with python3 here: what systemd is told is not tried")

const LISTEN = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = sys.argv[1]
s.bind("\\0" + path[1:] if path.startswith("@") else path)
print("bound", flush=True)
while True: print(repr(s.recv(4096).decode()), flush=True)
`
const MAIN = new URL("./main.ts", import.meta.url).pathname

describe.skipIf(!heard)("a systemd that waits", () => {
  let folder: string
  let listener: ChildProcess
  let said: string
  const listen = async (path: string) => {
    said = ""
    listener = spawn("python3", ["-c", LISTEN, path])
    listener.stdout!.on("data", (data) => (said += data))
    await expect.poll(() => said).toContain("bound")
  }
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "slos-systemd-"))
  })
  afterEach(() => {
    listener.kill()
    rmSync(folder, { recursive: true, force: true })
  })

  it.each(["in a folder", "in none"])("is told, at a path %s, and its children are not", async (kind) => {
    const path = kind === "in none" ? `@slos-serve-${process.pid}` : join(folder, "notify")
    await listen(path)
    const env: NodeJS.ProcessEnv = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "20000" }
    const systemd = Systemd.of(env, () => expect.unreachable())!
    expect(env).toEqual({})
    systemd.status("loading\nit")
    systemd.ready("serves tiny")
    systemd.stopping("finishing 2 requests")
    await expect.poll(() => said).toContain("'STATUS=loading it'")
    await expect.poll(() => said).toContain("'READY=1\\nSTATUS=serves tiny'")
    await expect.poll(() => said).toContain("'STOPPING=1\\nSTATUS=finishing 2 requests'")
    await expect.poll(() => said).toContain("'WATCHDOG=1'")
    systemd.close()
  })

  it("hears of a server from its start to its end", async () => {
    const path = join(folder, "notify")
    await listen(path)
    const env = { ...process.env, NOTIFY_SOCKET: path }
    const server = spawn(process.execPath, [MAIN, "serve", "--engine", "fake", "--port", "0"], { env })
    const ended = new Promise((end) => server.on("exit", end))
    await expect.poll(() => said).toMatch(/'READY=1\\nSTATUS=serves fake at http/)
    server.kill("SIGHUP")
    await expect.poll(() => said).toMatch(/'RELOADING=1\\nMONOTONIC_USEC=\d+'\n'READY=1\\nSTATUS=serves fake/)
    server.kill("SIGTERM")
    await ended
    await expect.poll(() => said).toMatch(/'STOPPING=1\\n/)
  })
})

it("is told of a reload only once the server is ready, and not while it stops", () => {
  const said: string[] = []
  const systemd = Systemd.telling((text) => said.push(text))
  let reloads = 0
  const reload = () => systemd.reloading(() => reloads++)
  reload()
  expect([reloads, said]).toEqual([1, []])
  systemd.ready("serves tiny")
  reload()
  expect(said).toEqual([
    "READY=1\nSTATUS=serves tiny",
    expect.stringMatching(/^RELOADING=1\nMONOTONIC_USEC=\d+$/),
    "READY=1\nSTATUS=serves tiny",
  ])
  systemd.stopping("bye")
  reload()
  expect(reloads).toBe(3)
  expect(said).toHaveLength(4)
})

it("is told nothing where none waits", () => {
  expect(Systemd.of({}, () => expect.unreachable())).toBeNull()
})

it("a socket that cannot be is a warning", () => {
  const warnings: string[] = []
  expect(Systemd.of({ NOTIFY_SOCKET: `/${"x".repeat(200)}` }, (one) => warnings.push(one))).toBeNull()
  expect(warnings).toHaveLength(1)
})
