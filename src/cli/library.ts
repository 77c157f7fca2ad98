/** `slos-serve library`: which llama.cpp library an engine takes here, and one compiled for this processor. */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { rm } from "node:fs/promises"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import Table from "cli-table3"
import type { Command } from "commander"
import { median } from "simple-statistics"
import { moduleBeside } from "../beside.ts"
import { builtFolder, isBuilt, libraryFor } from "../engine/llama/built.ts"
import { compileLibrary } from "../engine/llama/compile.ts"
import { findLibrary, LLAMA_VERSION } from "../engine/llama/files.ts"
import { UserError } from "../errors.ts"
import { cacheFolder, makeFolder } from "../models/cache.ts"
import { DEFAULT_MODEL, resolveModel } from "../models/resolve.ts"
import type { Speed, SpeedAsk } from "./library-speed.ts"
import { progressLine } from "./model.ts"

const EXAMPLES = `
Examples:
  # which one serve takes here
  slos-serve library

  # compile it for this processor (npm, git, cmake and a C++ compiler; some minutes), and see what that is worth
  slos-serve library build --model my-model.gguf`

interface BuildOptions {
  source?: string
  model: string
}

export function register(program: Command): void {
  const library = program
    .command("library")
    .description("show the llama.cpp library, or compile one for this processor")
    .addHelpText("after", EXAMPLES)
  library
    .command("show", { isDefault: true })
    .description("which library an engine takes here")
    .allowExcessArguments()
    .action((_: object, { args: [unknown] }: Command) => {
      if (unknown !== undefined)
        throw new UserError(`unknown command 'library ${unknown}'; known: show, build, compare, remove`)
      show()
    })
  library
    .command("build")
    .description("compile it for this processor; serve takes it from then on")
    .option("--source <folder>", `llama.cpp ${LLAMA_VERSION}'s source (default: fetched from npm)`)
    .option("-m, --model <model>", "what speed is compared with, as for serve", DEFAULT_MODEL)
    .action(build)
  library
    .command("compare")
    .description("what the prebuilt library and the one built here take")
    .option("-m, --model <model>", "as for serve", DEFAULT_MODEL)
    .action(async ({ model }: BuildOptions) => print((await compared(builtHere(), model)).table))
  library
    .command("remove")
    .description("remove the one built here")
    .action(() => rm(builtHere(), { recursive: true }))
}

function builtHere(): string {
  const folder = builtFolder(cacheFolder())
  if (!isBuilt(folder))
    throw new UserError("no library was built for this processor; run: slos-serve library build")
  return folder
}

function show(): void {
  const { folder } = findLibrary(libraryFor("auto", cacheFolder()))
  const built = folder === builtFolder(cacheFolder())
  print(`llama.cpp ${LLAMA_VERSION}, ${built ? "built for this processor" : "prebuilt"}: ${folder}`)
}

async function build({ source, model }: BuildOptions): Promise<void> {
  const folder = builtFolder(cacheFolder())
  const tell = progressLine()
  const onProgress = (message: string) => tell?.({ stage: "generate", message })
  await makeFolder(dirname(folder))
  await compileLibrary({ folder, onProgress, ...(source !== undefined && { source }) })
  onProgress("measuring both")
  const { table, share } = await compared(folder, model)
  if (process.stderr.isTTY) process.stderr.write("\n")
  print(table)
  if (share < 1) return print(`serve takes it from now on: ${folder}`)
  await rm(folder, { recursive: true })
  print("It is no faster than the prebuilt one, and was removed.")
}

/** Rounds of each, in turn: CPU time hardly depends on what else the machine does, but on how warm it is. */
const ROUNDS = { least: 3, most: 9 }
/** Large models take longer: enough of them then, ms. */
const ENOUGH_MS = 60_000

/** `share`: of the prebuilt one's time that the built one takes. */
async function compared(folder: string, model: string): Promise<{ table: string; share: number }> {
  const { path } = await resolveModel(model, { fallback: false, onProgress: progressLine() })
  const [prebuilt, built] = await Promise.all([speedOf("cpu", path), speedOf(folder, path)])
  try {
    const rounds: [Speed, Speed][] = []
    const endMs = performance.now() + ENOUGH_MS
    while (rounds.length < ROUNDS.least || (rounds.length < ROUNDS.most && performance.now() < endMs))
      rounds.push([await prebuilt.measure(), await built.measure()])
    const of = (which: 0 | 1, what: keyof Speed) => median(rounds.map((round) => round[which][what]))
    const table = new Table({
      head: [`CPU time, ms (${model}, one thread)`, "prebuilt", "built here"],
      style: { head: [], border: [] },
    })
    const row = (name: string, what: keyof Speed) =>
      table.push([name, of(0, what).toFixed(1), of(1, what).toFixed(1)])
    row("a prompt of 511 tokens", "promptMs")
    row("a step of 8 decodes at 63 to 78 tokens", "decodesMs")
    const shares = (["promptMs", "decodesMs"] as const).map((what) => of(1, what) / of(0, what))
    return { table: table.toString(), share: Math.sqrt(shares[0]! * shares[1]!) }
  } finally {
    prebuilt.stop()
    built.stop()
  }
}

async function speedOf(library: string, modelPath: string) {
  const child = fork(fileURLToPath(moduleBeside(import.meta.url, "library-speed")), {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  })
  await said(child, { type: "open", library, modelPath })
  return {
    measure: () => said(child, { type: "measure" }) as Promise<Speed>,
    stop: () => child.disconnect(),
  }
}

async function said(child: ChildProcess, ask: SpeedAsk): Promise<unknown> {
  child.send(ask)
  const over = new AbortController()
  try {
    const [answer] = await Promise.race([
      once(child, "message", { signal: over.signal }),
      once(child, "exit", { signal: over.signal }).then(([code, signal]) => {
        throw new UserError(
          `the engine's process ended (${signal ?? `code ${code}`}); the library cannot be used here`,
        )
      }),
    ])
    return answer
  } finally {
    over.abort()
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}
