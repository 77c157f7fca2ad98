/** How a command ends when it fails: one line for what the user can put right (exit code 2), else a message and
 * how to report it (exit code 1). */
import { CommanderError } from "commander"
import pc from "picocolors"
import { UserError } from "../errors.ts"

export function fail(error: unknown): number {
  // commander has printed its own message.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof UserError) {
    process.stderr.write(`${pc.red("error:")} ${oneLine(error.message)}\n`)
    return 2
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  process.stderr.write(
    `${pc.red("unexpected error:")} ${text}\n` +
      "This is a fault in slos-serve. Please report it with the command, this text, and the output of " +
      "`slos-serve --version`.\n",
  )
  return 1
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, " ")
}
