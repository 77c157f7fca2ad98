/** Ten times the rate for a minute against a server with worker processes: what was promised keeps its SLOs, the rest is served as
 * best effort or told when to come back, memory stays bounded, and all is as before within the drain time: what the server itself
 * told those that it refused last, from when the last of them is back, since until then the load is not as before. Prints tables
 * and writes bench/results/fleet/burst.{json,md}. Exit code 1 when a stream hung or broke off, or it was not as before in time. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Command } from "commander"
import { quantile } from "simple-statistics"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { Random } from "../../src/random.ts"
import { childrenOf, type StageOptions, workersStage } from "./chaos/stage.ts"
import { type Followed, follow, inTime } from "./chaos/stream.ts"
import { ASKED } from "./chaos/transcripts.ts"

interface Options {
  rate: number
  times: number
  calmS: number
  burstS: number
  watchS: number
  restS: number
  maxQueue: number
  replicas: number
  return: boolean
  seed: number
  port: number
  out: string
}

const PHASES = ["before", "burst", "after"] as const
type Phase = (typeof PHASES)[number]
const SLO = { ttft_ms: 1000, tpot_ms: 50 }
const MEMORY_EVERY_MS = 250
const REST_EVERY_MS = 100

/** One request, and what came when it went back after the time that it was told. */
interface Asked {
  phase: Phase
  first: Followed
  /** Null: it was not refused. */
  again: Followed | null
}

/** What was told last before the burst's end. */
const LAST_MS = 5000

async function main(): Promise<void> {
  const options = new Command("bench/fleet/burst.ts")
    .option("--rate <n>", "requests a second, before and after", numberIn(0.1, 1000), 4)
    .option("--times <n>", "as many in the burst", numberIn(1, 1000), 10)
    .option("--calm-s <n>", "before, and after", numberIn(1, 3600), 30)
    .option("--burst-s <n>", "of the burst", numberIn(1, 3600), 60)
    .option("--watch-s <n>", "after the burst, until all is as before", numberIn(1, 3600), 180)
    .option("--rest-s <n>", "of rest, before memory is looked at again", numberIn(0, 3600), 30)
    .option("--max-queue <n>", "as for serve", wholeNumber(1, 100_000), 256)
    .option("--replicas <n>", "as for serve", wholeNumber(2, 16), 2)
    .option("--no-return", "what is refused does not come back: the burst ends when it ends")
    .option("--seed <n>", "of arrivals and prompts", wholeNumber(0, 2 ** 31), 1)
    .option("--port <n>", "of the server", port, 18540)
    .option("--out <folder>", "for results", "bench/results/fleet")
    .parse()
    .opts<Options>()
  const setup: StageOptions = { engine: "fake", model: "", ...options, logFolder: tmpdir() }
  const stage = await workersStage({ ...setup, more: ["--max-queue", String(options.maxQueue)] })
  try {
    const result = await measure(options, stage.gateways[0]!.url, stage.pid)
    mkdirSync(options.out, { recursive: true })
    writeFileSync(join(options.out, "burst.json"), `${JSON.stringify(result, null, 2)}\n`)
    writeFileSync(join(options.out, "burst.md"), tableOf(result))
    console.log(tableOf(result))
    const broken = result.phases.some(({ hung, other }) => hung + other > 0)
    const { normalMs, lastReturnMs, drainMs } = result
    if (broken || normalMs === null || normalMs > Math.max(0, lastReturnMs) + drainMs) process.exitCode = 1
  } finally {
    await stage.close()
  }
}

async function measure(options: Options, url: string, pid: number) {
  const memory = watchMemory(pid)
  await sleep(4 * MEMORY_EVERY_MS)
  const asked: Promise<Asked>[] = []
  const random = new Random(options.seed)
  const calm = watchLive(url)
  await send(asked, "before", options.rate, options.calmS, url, random, options.return)
  const calmLive = calm.most()
  const before = memory.now()
  await send(asked, "burst", options.rate * options.times, options.burstS, url, random, options.return)
  const burstEndMs = performance.now()
  const rest = send(asked, "after", options.rate, options.calmS, url, random, options.return)
  const normalMs = await untilNormal(url, options, calmLive)
  await rest
  const all = await Promise.all(asked)
  await sleep(options.restS * 1000)
  const after = memory.now()
  memory.stop()
  return {
    ...{ options, command: `node bench/fleet/burst.ts ${process.argv.slice(2).join(" ")}`.trim(), slo: SLO },
    loadAverage: loadavg(),
    phases: PHASES.map((phase) =>
      figuresOf(
        phase,
        all.filter((one) => one.phase === phase),
      ),
    ),
    // After the burst's end.
    normalMs,
    lastReturnMs: Math.round(Math.max(...all.map(({ again }) => again?.startMs ?? 0)) - burstEndMs),
    drainMs: drainTold(all, burstEndMs),
    memoryMb: { before, peak: memory.peak(), after },
  }
}

/** Open loop: arrivals of a Poisson process, whatever becomes of the earlier ones. */
async function send(
  asked: Promise<Asked>[],
  phase: Phase,
  rate: number,
  seconds: number,
  url: string,
  random: Random,
  returns: boolean,
): Promise<void> {
  const startMs = performance.now()
  for (let atMs = 0; ; ) {
    atMs += random.exponential(1000 / rate)
    if (atMs >= seconds * 1000) break
    await sleep(Math.max(0, startMs + atMs - performance.now()))
    asked.push(ask(phase, url, random.below(ASKED.length), returns))
  }
  await sleep(Math.max(0, startMs + seconds * 1000 - performance.now()))
}

async function ask(phase: Phase, url: string, which: number, returns: boolean): Promise<Asked> {
  const request = ASKED[which]!
  const first = await follow(url, request, { slo: SLO })
  if (first.retryMs === null || !returns) return { phase, first, again: null }
  await sleep(first.retryMs)
  return { phase, first, again: await follow(url, request, { slo: SLO }) }
}

/** The longest time that was told to those that were refused last, ms: until it has worked off what it has. */
function drainTold(all: readonly Asked[], burstEndMs: number): number {
  const last = all.filter(({ first }) => Math.abs(first.startMs + LAST_MS / 2 - burstEndMs) < LAST_MS / 2)
  return Math.round(Math.max(0, ...last.map(({ first }) => first.retryMs ?? 0)))
}

/** From the burst's end until no more is live than was at most before it; null: not while it was watched. */
async function untilNormal(url: string, { watchS }: Options, calmLive: number): Promise<number | null> {
  const startMs = performance.now()
  while (performance.now() < startMs + watchS * 1000) {
    if ((await liveAt(url)) <= calmLive) return Math.round(performance.now() - startMs)
    await sleep(REST_EVERY_MS)
  }
  return null
}

async function liveAt(url: string): Promise<number> {
  const status = await (await fetch(`${url}/v1/slo/status`)).json()
  const { running, waiting } = (status as { requests: { running: number; waiting: number } }).requests
  return running + waiting
}

function watchLive(url: string) {
  let most = 1
  const timer = setInterval(async () => {
    most = Math.max(most, await liveAt(url))
  }, REST_EVERY_MS)
  return {
    most: () => {
      clearInterval(timer)
      return most
    },
  }
}

function figuresOf(phase: Phase, asked: readonly Asked[]) {
  const served = asked.map(({ first }) => first).filter(({ end }) => end === "ok")
  const promised = served.filter(({ tier }) => tier === "slo")
  const bestEffort = served.filter(({ tier }) => tier !== "slo")
  const refused = asked.filter(({ first }) => first.retryMs !== null)
  const cameBack = refused.filter(({ again }) => again?.end === "ok")
  const hung = asked.filter(({ first }) => first.end === "hung").length
  const retryMs = refused.map(({ first }) => first.retryMs!)
  return {
    ...{ phase, requests: asked.length, promised: promised.length, bestEffort: bestEffort.length, hung },
    promisedKept: promised.filter((one) => inTime(one, SLO)).length,
    promisedKeptByServer: promised.filter(({ kept }) => kept === true).length,
    /** Promises hold from the first token on: of these one was not kept. */
    bestEffortFirstInTime: bestEffort.filter(({ startMs, tokenMs }) => tokenMs[0]! <= startMs + SLO.ttft_ms)
      .length,
    refused: refused.length,
    refusedWithoutTime: retryMs.filter((ms) => !(ms > 0)).length,
    retryP50Ms: retryMs.length === 0 ? null : Math.round(quantile(retryMs, 0.5)),
    /** Of those that were refused: served when they came back after the time they were told. */
    servedAtReturn: cameBack.length,
    other: asked.length - served.length - refused.length - hung,
  }
}

type Figures = Awaited<ReturnType<typeof measure>>

/** Resident memory of the server and its workers, MiB. */
function watchMemory(pid: number) {
  const read = (of: number) =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${of}/status`, "utf8"))?.[1] ?? 0) / 1024
  const now = () => ({
    server: Math.round(read(pid)),
    workers: childrenOf(pid).map((one) => Math.round(read(one))),
  })
  let peak = now()
  const timer = setInterval(() => {
    const { server, workers } = now()
    const most = workers.map((mb, i) => Math.max(mb, peak.workers[i] ?? 0))
    peak = { server: Math.max(server, peak.server), workers: most }
  }, MEMORY_EVERY_MS)
  return { now, peak: () => peak, stop: () => clearInterval(timer) }
}

/** For docs, as it stands. */
function tableOf({ phases, normalMs, lastReturnMs, drainMs, memoryMb, options }: Figures): string {
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
  const returned =
    lastReturnMs > 0 ? ` (the last of those that were refused was back after ${seconds(lastReturnMs)})` : ""

  const memory = ({ server, workers }: { server: number; workers: number[] }) =>
    `${server} + ${workers.join(" + ")}`
  return [
    `${options.rate} requests/s, ${options.times} times as many for ${options.burstS} s, ${options.replicas} workers of the fake engine; ` +
      `first token in ${SLO.ttft_ms} ms, then ${SLO.tpot_ms} ms a token; --max-queue ${options.maxQueue}.`,
    "",
    "| | requests | served as promised | of these in time (by the server's clock) | best effort | of these first token in time | 429 | served when they came back | hung or broken off |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ...phases.map(
      (one) =>
        `| ${one.phase} | ${one.requests} | ${one.promised} | ${one.promisedKept} (${one.promisedKeptByServer}) | ${one.bestEffort} | ${one.bestEffortFirstInTime} | ` +
        `${one.refused} (after ${one.retryP50Ms ?? "–"} ms, p50) | ${one.servedAtReturn} | ${one.hung + one.other} |`,
    ),
    "",
    `As before ${normalMs === null ? `not within ${options.watchS} s` : `${seconds(normalMs)} after the burst's end`}${returned}; ` +
      `those that were refused last were told to come back after up to ${seconds(drainMs)}. ` +
      `Memory, MiB (server + workers): ${memory(memoryMb.before)} before, ${memory(memoryMb.peak)} at most, ` +
      `${memory(memoryMb.after)} ${options.restS} s after all had ended.`,
    "",
  ].join("\n")
}

await main()
process.exit()
