/** Many concurrent streaming clients against our server with the fake engine: errors, memory, event-loop delay,
 * tokens per second. Prints JSON. */
import { Command } from "commander"
import { linearRegression, median } from "simple-statistics"
import { numberIn, port, wholeNumber } from "../src/cli/numbers.ts"
import { complete, connect } from "../src/load/client.ts"
import { Random } from "../src/random.ts"
import { Server } from "./real/servers.ts"

interface Sample {
  atSec: number
  rssMiB: number
  /** Of the JavaScript heap, what is older than a moment: garbage included, except right after a collection. */
  oldMiB: number
  loopP99Ms: number
}

/** Collects garbage when told to. */
const COLLECTOR = 'data:text/javascript,process.on("SIGUSR2",()=>gc())'
/** Time from telling to reading, ms: a collection takes less. */
const COLLECTED_MS = 500

async function main(): Promise<void> {
  const options = new Command("bench/clients.ts")
    .option(
      "--clients <n>",
      "concurrent clients; each sends its next request when the last has ended",
      wholeNumber(1, 10_000),
      1000,
    )
    .option("--duration <s>", "of the load", numberIn(1, 1e5), 120)
    .option(
      "--collect <s>",
      "collect the server's garbage so often: shows what lives, not what V8 takes",
      numberIn(1, 1e5),
    )
    .option("--port <n>", "of the server", port, 18400)
    .parse()
    .opts<{ clients: number; duration: number; collect?: number; port: number }>()
  const { clients, duration } = options
  const collectSec = options.collect ?? null
  const command = [
    process.execPath,
    ...(collectSec === null ? [] : ["--expose-gc", "--import", COLLECTOR]),
    ...["src/cli/main.ts", "serve", "--engine", "fake", "--port", String(options.port)],
    ...["--log-level", "warn", "--max-sequences", "256", "--context", "1024"],
    ...["--max-batch-tokens", "2048", "--max-queue", "10000"],
  ]
  const fake = { name: "fake", kind: "slos-serve" } as const
  const server = await Server.start(fake, command, options.port, "bench/results/clients.log")
  try {
    await server.ready(60_000)
    const result = await drive(server, clients, duration, collectSec)
    report(clients, result, duration, collectSec)
  } finally {
    await server.stop()
  }
}

async function drive(server: Server, clients: number, durationSec: number, collectSec: number | null) {
  const connections = connect(server.target.url)
  const startMs = performance.now()
  const endMs = startMs + durationSec * 1000
  const samples: Sample[] = []
  const errors = new Map<string, number>()
  const openNow = { now: 0, most: 0 }
  let [tokens, requests] = [0, 0]
  const client = async (index: number) => {
    const random = new Random("client", index)
    while (performance.now() < endMs) {
      const outputTokens = random.integer(20, 200)
      let got = 0
      openNow.most = Math.max(openNow.most, ++openNow.now)
      const result = await complete(
        connections,
        server.target,
        {
          prompt: Array.from({ length: random.integer(10, 200) }, () => random.integer(32, 256)),
          outputTokens,
          thinkingTokens: 0,
          slo: { ttftMs: 10_000, tpotMs: 500, thinkingTpotMs: 500, maxGapMs: Infinity },
          class: "chat",
          session: null,
        },
        {
          timeoutMs: 300_000,
          onTokens: (count) => {
            got += count
            tokens += count
          },
        },
      )
      openNow.now--
      requests++
      const problem =
        result.end !== "ok" ? `${result.end}: ${result.message}` : got !== outputTokens ? "short" : null
      if (problem !== null) errors.set(problem, (errors.get(problem) ?? 0) + 1)
    }
  }
  const sample = async () => {
    samples.push({ atSec: (performance.now() - startMs) / 1000, ...(await scrape(server)) })
  }
  const collect = async () => {
    process.kill(server.pid, "SIGUSR2")
    setTimeout(sample, COLLECTED_MS)
  }
  const scraper = collectSec === null ? setInterval(sample, 1000) : setInterval(collect, collectSec * 1000)
  await Promise.all(Array.from({ length: clients }, (_, i) => client(i)))
  clearInterval(scraper)
  connections.agent.destroy()
  const elapsedSec = (performance.now() - startMs) / 1000
  return { samples, errors, tokens, requests, elapsedSec, mostOpen: openNow.most }
}

async function scrape(server: Server): Promise<Omit<Sample, "atSec">> {
  const text = await (await fetch(`${server.target.url}/metrics`)).text().catch(() => "")
  const value = (pattern: RegExp) => Number(pattern.exec(text)?.[1])
  const space = (name: string) =>
    value(new RegExp(`^nodejs_heap_space_size_used_bytes{space="${name}"} (\\S+)`, "m"))
  return {
    rssMiB: value(/^process_resident_memory_bytes (\S+)/m) / 2 ** 20,
    oldMiB: (space("old") + space("large_object")) / 2 ** 20,
    loopP99Ms: value(/^slos_serve_event_loop_delay_seconds\{percentile="99"\} (\S+)/m) * 1000,
  }
}

function report(
  clients: number,
  result: Awaited<ReturnType<typeof drive>>,
  durationSec: number,
  collectSec: number | null,
): void {
  const { samples, errors, tokens, requests, elapsedSec, mostOpen } = result
  // The first half fills caches and lets the heap find its size; after `durationSec` the load falls off.
  const settled = samples.filter(({ atSec }) => atSec > durationSec / 2 && atSec <= durationSec)
  if (settled.length < 3) throw new Error("too short to judge: give a longer --duration")
  const delays = settled.map((sample) => sample.loopP99Ms).sort((a, b) => a - b)
  const summary = {
    clients,
    durationSec,
    collectSec,
    mostOpen,
    requests,
    errors: Object.fromEntries(errors),
    tokensPerSec: Math.round(tokens / elapsedSec),
    rssMiB: trend(settled, "rssMiB"),
    // After a collection this is what lives; without, the garbage since the last one is in it.
    oldHeapMiB: trend(settled, "oldMiB"),
    ...(collectSec === null && {
      eventLoopDelayP99Ms: { medianSecond: round(median(delays)), worstSecond: round(delays.at(-1)!) },
    }),
    series: thinned(samples).map(({ atSec, rssMiB, oldMiB }) => [atSec, rssMiB, oldMiB].map(round)),
  }
  console.log(JSON.stringify(summary, null, 2))
}

/** From the first sample to the last, the extremes between, and the slope of a line through all. */
function trend(samples: readonly Sample[], key: "rssMiB" | "oldMiB") {
  const values = samples.map((sample) => sample[key])
  return {
    start: round(values[0]!),
    end: round(values.at(-1)!),
    least: round(Math.min(...values)),
    most: round(Math.max(...values)),
    perMin: round(linearRegression(samples.map((sample) => [sample.atSec / 60, sample[key]])).m),
  }
}

/** At most some twenty of them. */
function thinned(samples: readonly Sample[]): Sample[] {
  const every = Math.ceil(samples.length / 20)
  return samples.filter((_, i) => i % every === 0)
}

const round = (value: number) => Number(value.toFixed(2))

await main()
