/** Many concurrent streaming clients against our server with the fake engine: errors, memory, event-loop delay,
 * tokens per second. Prints a table and one JSON line. */
import { Command } from "commander"
import { linearRegression, median } from "simple-statistics"
import { complete, connect } from "../src/load/client.ts"
import { Random } from "../src/random.ts"
import { Server } from "./real/servers.ts"

interface Sample {
  atSec: number
  rssMiB: number
  loopP99Ms: number
}

async function main(): Promise<void> {
  const options = new Command("bench/clients.ts")
    .option(
      "--clients <n>",
      "concurrent clients; each sends its next request when the last has ended",
      "1000",
    )
    .option("--duration <s>", "", "120")
    .option("--port <n>", "", "18400")
    .parse()
    .opts<{ clients: string; duration: string; port: string }>()
  const clients = Number(options.clients)
  const system = {
    name: "fake",
    kind: "slos-serve" as const,
    guessPerSec: 0,
    command: (_: unknown, port: number) => [
      process.execPath,
      ...["src/cli/main.ts", "serve", "--engine", "fake", "--port", String(port), "--log-level", "warn"],
      ...[
        "--max-sequences",
        "256",
        "--context",
        "1024",
        "--max-batch-tokens",
        "2048",
        "--max-queue",
        "10000",
      ],
    ],
  }
  const server = new Server(system, {} as never, Number(options.port), "bench/results/clients.log")
  try {
    await server.ready(60_000)
    const result = await drive(server, clients, Number(options.duration))
    report(clients, result, Number(options.duration))
  } finally {
    await server.stop()
  }
}

async function drive(server: Server, clients: number, durationSec: number) {
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
          slo: { ttftMs: 10_000, tpotMs: 500, thinkingTpotMs: 500 },
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
  const scraper = setInterval(async () => {
    const text = await (await fetch(`${server.target.url}/metrics`)).text().catch(() => "")
    const value = (pattern: RegExp) => Number(pattern.exec(text)?.[1])
    samples.push({
      atSec: (performance.now() - startMs) / 1000,
      rssMiB: value(/^process_resident_memory_bytes (\S+)/m) / 2 ** 20,
      loopP99Ms: value(/^slos_serve_event_loop_delay_seconds\{quantile="0.99"\} (\S+)/m) * 1000,
    })
  }, 1000)
  await Promise.all(Array.from({ length: clients }, (_, i) => client(i)))
  clearInterval(scraper)
  connections.agent.destroy()
  const elapsedSec = (performance.now() - startMs) / 1000
  return { samples, errors, tokens, requests, elapsedSec, mostOpen: openNow.most }
}

function report(clients: number, result: Awaited<ReturnType<typeof drive>>, durationSec: number): void {
  const { samples, errors, tokens, requests, elapsedSec, mostOpen } = result
  // The first third fills caches and lets the heap find its size; after `durationSec` the load falls off.
  const settled = samples.filter(({ atSec }) => atSec > durationSec / 3 && atSec <= durationSec)
  if (settled.length < 3) throw new Error("too short to judge: give a longer --duration")
  const slope = linearRegression(settled.map(({ atSec, rssMiB }) => [atSec / 60, rssMiB])).m
  const delays = settled.map((sample) => sample.loopP99Ms).sort((a, b) => a - b)
  const summary = {
    clients,
    mostOpen,
    requests,
    errors: Object.fromEntries(errors),
    tokensPerSec: Math.round(tokens / elapsedSec),
    rssMiB: { start: Math.round(settled[0]!.rssMiB), end: Math.round(settled.at(-1)!.rssMiB) },
    rssMiBPerMin: Number(slope.toFixed(2)),
    eventLoopDelayP99Ms: {
      medianSecond: Number(median(delays).toFixed(2)),
      worstSecond: Number(delays.at(-1)!.toFixed(2)),
    },
  }
  console.log(JSON.stringify(summary, null, 2))
}

await main()
