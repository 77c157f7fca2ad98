/** `slos-serve planner replay`: says whether a recording's plans are made again. */
import { replayRecording } from "../planner-process/replay.ts"

/** Exit code 1 where they are not. */
export async function replayFile(path: string, json: boolean): Promise<void> {
  const result = replayRecording(path)
  const { sessions, events, plans, difference, program, cut } = result
  if (difference !== null) process.exitCode = 1
  if (json) {
    process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
    return
  }
  const of = `${sessions} ${sessions === 1 ? "engine" : "engines"}, ${events} events, by slos-serve ${program}`
  const end = cut ? " (the file is cut off: what is after its last whole frame is missing)" : ""
  if (difference === null) process.stdout.write(`all ${plans} plans are the same (${of})${end}\n`)
  else {
    const { engine, atUs, what } = difference
    process.stdout.write(
      `plan ${plans} is not the same (${of}): engine ${engine} at ${(atUs / 1e6).toFixed(6)} s: ${what}\n`,
    )
  }
}
