/** The YAML file after vLLM's --config, as far as this command has to know it. */
import { readFileSync } from "node:fs"
import { parse } from "yaml"
import { UserError } from "../errors.ts"

/** By names with dashes; empty without a file. Throws UserError where there is none, or no map in it. */
export function readConfigFile(path: string | null): Record<string, unknown> {
  if (path === null) return {}
  const wrong = (detail: string) => new UserError(`the file after vLLM's --config, ${path}: ${detail}`)
  let read: unknown
  try {
    // As vLLM reads it: there `no` and `off` are false.
    read = parse(readFileSync(path, "utf8"), { version: "1.1" })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw wrong(code ?? message.split("\n")[0]!)
  }
  if (read === null) return {}
  if (!isRecord(read)) throw wrong("it is no map of argument names to values")
  return Object.fromEntries(Object.entries(read).map(([name, value]) => [name.replaceAll("_", "-"), value]))
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** Both, `over` where they differ; maps within maps alike. */
export function merged(
  under: Readonly<Record<string, unknown>>,
  over: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const both: Record<string, unknown> = { ...under }
  for (const [name, value] of Object.entries(over)) {
    const below = Object.hasOwn(under, name) ? under[name] : undefined
    both[name] = isRecord(below) && isRecord(value) ? merged(below, value) : value
  }
  return both
}
