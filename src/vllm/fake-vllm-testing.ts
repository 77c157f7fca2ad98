/** A program that looks like `vllm serve` from outside, for tests: its log lines, its HTTP side, an engine process of its own,
 * and what goes wrong. FAKE_VLLM in the environment says how it behaves. */
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { FakeBackend } from "../fleet/backends/testing.ts"

export interface FakeVllm {
  /** Where it writes down its arguments and the pids of itself and its engine. */
  told: string
  loadMs?: number
  /** It ends with these words while it loads. */
  fails?: string
  /** Between two words of an answer. */
  wordMs?: number
  /** It takes no notice of being asked to end. */
  stubborn?: boolean
}

export interface Told {
  args: string[]
  pid: number
  engine: number
  environment: Record<string, string | undefined>
}

function say(text: string): void {
  process.stderr.write(`(APIServer pid=${process.pid}) INFO 11-28 20:00:00 [serve.py:7] ${text}\n`)
}

async function main(args: string[]): Promise<void> {
  const { told, loadMs = 0, fails, wordMs = 1, stubborn } = JSON.parse(process.env.FAKE_VLLM!) as FakeVllm
  const engine = spawn("sleep", ["1000"], { stdio: "ignore" })
  const { PYTHONPATH, SLOS_SERVE_CLASSES } = process.env
  const environment = { PYTHONPATH, SLOS_SERVE_CLASSES }
  writeFileSync(
    told,
    JSON.stringify({ args, pid: process.pid, engine: engine.pid!, environment } satisfies Told),
  )
  if (stubborn) for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => {})
  say("Loading weights")
  process.stderr.write("Loading shards:  50% Completed\r")
  await sleep(loadMs)
  if (fails !== undefined) {
    process.stderr.write(`Traceback (most recent call last):\n${fails}\n`)
    process.exit(1)
  }
  const port = Number(args[args.lastIndexOf("--port") + 1])
  await FakeBackend.open({ kind: "vllm", port, words: 8, wordMs })
  say("Application startup complete.")
}

if (import.meta.main) void main(process.argv.slice(2))
