/** The processes that a fleet is made of, and what may be done to them. */
import { readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { Server } from "../../real/servers.ts"
import type { Fault, FaultKind } from "./faults.ts"
import { FaultProxy } from "./proxy.ts"

export interface Gateway {
  url: string
  /** When it died, performance.now(). */
  diedMs: number[]
}

export interface Stage {
  kinds: readonly FaultKind[]
  gateways: Gateway[]
  /** Whether each replica is ready, as a gateway that answers says. */
  ready(): Promise<boolean[]>
  /** Does it; resolves as soon as it is done to it. */
  inflict(fault: Fault): Promise<void>
  /** Every fault that lasts is over. */
  settled(): Promise<void>
  close(): Promise<void>
}

export interface EngineArgs {
  engine: "fake" | "llama"
  model: string
}

const PAUSE_MS = [200, 1800] as const
const SLOW_MS = [3000, 8000] as const
const STOP_MS = [4000, 8000] as const
/** Of a slow process's time, how much it runs, ms, and how long it then stands still. */
const [RUN_MS, STAND_MS] = [10, 90]
/** A process that a supervisor starts again is back after this. */
const RESTART_MS = 500
const READY_MS = 120_000

const within = ([least, most]: readonly [number, number], share: number) => least + share * (most - least)

/** Stopped now, or now and then. Such processes outlive their parents: they are ended with this one. */
const stopped = new Set<number>()
process.once("exit", () => {
  for (const pid of stopped) send(pid, "SIGKILL")
})

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It is gone already.
  }
}

async function stopFor(pid: number, ms: number): Promise<void> {
  stopped.add(pid)
  send(pid, "SIGSTOP")
  await sleep(ms)
  send(pid, "SIGCONT")
  stopped.delete(pid)
}

async function slowFor(pid: number, ms: number): Promise<void> {
  const endMs = performance.now() + ms
  stopped.add(pid)
  while (performance.now() < endMs) {
    send(pid, "SIGSTOP")
    await sleep(STAND_MS)
    send(pid, "SIGCONT")
    await sleep(RUN_MS)
  }
  stopped.delete(pid)
}

/** Signals that a process gets. Resolves when the first is sent; `lasting` collects what goes on. */
function signalled(pid: number, { kind, length }: Fault, lasting: Set<Promise<void>>): void {
  const during = (work: Promise<void>) => {
    const done = work.finally(() => lasting.delete(done))
    lasting.add(done)
  }
  if (kind === "kill") send(pid, "SIGKILL")
  else if (kind === "stop") during(stopFor(pid, within(STOP_MS, length)))
  else if (kind === "pause") during(stopFor(pid, within(PAUSE_MS, length)))
  else if (kind === "slow") during(slowFor(pid, within(SLOW_MS, length)))
}

async function settled(lasting: Set<Promise<void>>): Promise<void> {
  while (lasting.size > 0) await Promise.all(lasting)
}

const engineArgs = ({ engine, model }: EngineArgs) =>
  engine === "fake"
    ? ["--engine", "fake"]
    : ["--model", model, "--kv-type", "f32", "--no-profile", "--no-kv-unified", "--context", "1024"]

function serve(name: string, port: number, logFolder: string, args: readonly string[]): Promise<Server> {
  const command = [
    process.execPath,
    "src/cli/main.ts",
    "serve",
    "--port",
    String(port),
    "--log-level",
    "info",
  ]
  return Server.start(
    { name, kind: "slos-serve" },
    [...command, ...args],
    port,
    `${logFolder}/${name}-${port}.log`,
  )
}

async function readyOf(gateways: readonly Gateway[]): Promise<boolean[]> {
  for (const { url } of gateways) {
    const answer = await fetch(`${url}/v1/slo/status`, { signal: AbortSignal.timeout(2000) }).catch(
      () => null,
    )
    if (!answer?.ok) continue
    const { replicas } = (await answer.json()) as { replicas: { state: string }[] }
    return replicas.map(({ state }) => state === "ready")
  }
  return []
}

export interface StageOptions extends EngineArgs {
  replicas: number
  port: number
  logFolder: string
  /** Further options of `serve`. */
  more?: readonly string[]
}

/** One server whose replicas are worker processes. */
export async function workersStage(options: StageOptions): Promise<Stage & { pid: number }> {
  const { replicas, port, logFolder, more = [] } = options
  const count = String(replicas)
  const args = [...engineArgs(options), "--replicas", count, "--threads", count, ...more]
  const server = await serve("workers", port, logFolder, args)
  await server.ready(READY_MS)
  const gateways = [{ url: server.target.url, diedMs: [] }]
  const lasting = new Set<Promise<void>>()
  return {
    kinds: ["kill", "stop", "pause", "slow"],
    gateways,
    pid: server.pid,
    ready: () => readyOf(gateways),
    async inflict(fault) {
      const pids = childrenOf(server.pid).filter((pid) => !stopped.has(pid))
      const pid = pids[Math.floor(fault.place * pids.length)]
      if (pid !== undefined) signalled(pid, fault, lasting)
    },
    settled: () => settled(lasting),
    close: () => server.stop(),
  }
}

/** Linux: processes that it started and that live. */
export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim()
  return text === "" ? [] : text.split(" ").map(Number)
}

/** Servers as replicas over TCP, each behind a proxy, and two gateways before them. This bench starts again what dies. */
export async function wireStage(options: StageOptions): Promise<Stage> {
  const { replicas, port, logFolder } = options
  const places = Array.from({ length: replicas }, (_, i) => port + i)
  const startReplica = (at: number) =>
    serve(`replica${at}`, at, logFolder, [...engineArgs(options), "--threads", "1"])
  const servers = await Promise.all(places.map(startReplica))
  await Promise.all(servers.map((server) => server.ready(READY_MS)))
  const proxies = await Promise.all(places.map((at) => FaultProxy.before(at)))
  const startGateway = (i: number) => {
    const at = port + replicas + i
    const command = [
      process.execPath,
      "bench/fleet/chaos/gateway.ts",
      String(at),
      ...proxies.map(({ url }) => url),
    ]
    return Server.start(
      { name: `gateway${i}`, kind: "slos-serve" },
      command,
      at,
      `${logFolder}/gateway${i}-${at}.log`,
    )
  }
  const running = [await startGateway(0), await startGateway(1)]
  await Promise.all(running.map((server) => server.ready(READY_MS)))
  const gateways: Gateway[] = running.map(({ target }) => ({ url: target.url, diedMs: [] }))
  const lasting = new Set<Promise<void>>()

  const again = async (list: Server[], place: number, start: (place: number) => Promise<Server>) => {
    if (list[place]!.alive) await list[place]!.exited
    await sleep(RESTART_MS)
    list[place] = await start(place)
    await list[place]!.ready(READY_MS)
  }
  const during = (work: Promise<void>) => {
    const done = work.finally(() => lasting.delete(done))
    lasting.add(done)
  }
  return {
    kinds: ["kill", "stop", "pause", "slow", "cut", "corrupt", "gateway"],
    gateways,
    ready: () => readyOf(gateways),
    async inflict(fault) {
      // One that nothing else happens to.
      const free = places.flatMap((_, i) => (stopped.has(servers[i]!.pid) ? [] : i))
      const place = free[Math.floor(fault.place * free.length)] ?? 0
      if (fault.kind === "cut") proxies[place]!.cut()
      else if (fault.kind === "corrupt") proxies[place]!.corrupt()
      else if (fault.kind === "gateway") {
        const which = Math.floor(fault.place * running.length)
        gateways[which]!.diedMs.push(performance.now())
        send(running[which]!.pid, "SIGKILL")
        during(again(running, which, startGateway))
      } else {
        signalled(servers[place]!.pid, fault, lasting)
        if (fault.kind === "kill") during(again(servers, place, (i) => startReplica(places[i]!)))
      }
    },
    settled: () => settled(lasting),
    async close() {
      await Promise.all(running.map((server) => server.stop()))
      for (const proxy of proxies) proxy.close()
      await Promise.all(servers.map((server) => server.stop()))
    },
  }
}
