/** What a results folder holds: meta.json, and one row a run in runs.jsonl. */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { SloClasses, ZeroLoad } from "../../src/load/classes.ts"
import type { Score } from "../../src/load/score.ts"
import type { Reference } from "./reference.ts"
import type { Setup } from "./systems.ts"

/** One line of runs.jsonl. */
export interface RunRow {
  system: string
  seed: number
  rung: number
  ratePerSec: number
  startedAt: string
  before: Reference
  after: Reference
  score: Score
}

/** meta.json: what all runs of a results folder share. */
export interface Meta {
  model: string
  cpu: string
  setup: Omit<Setup, "llamaServer" | "config" | "model">
  scenario: string
  durationSec: number
  scale: number
  burstiness: number
  classes: SloClasses
  zeroLoad: ZeroLoad
  sources: Record<string, string>
  commandLine: string[]
  commands: Record<string, string[]>
}

export function readRows(folder: string): RunRow[] {
  const path = join(folder, "runs.jsonl")
  if (!existsSync(path)) return []
  return readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as RunRow)
}
