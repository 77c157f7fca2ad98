/** Secrets as a config names them: `env:NAME` is in a variable of the environment, `file:PATH` in a file. */
import { readFileSync } from "node:fs"

export type Environment = Readonly<Record<string, string | undefined>>

/** Throws an Error without a place, which never has the secret in it. Any other text is the secret itself. */
export function readSecret(text: string, environment: Environment): string {
  if (text.startsWith("env:")) {
    const name = text.slice("env:".length)
    const value = environment[name] ?? ""
    if (value === "") throw new Error(`the environment variable ${name} is not set`)
    return value
  }
  if (!text.startsWith("file:")) return text
  const path = text.slice("file:".length)
  try {
    return readFileSync(path, "utf8").trim()
  } catch (error) {
    throw new Error(`cannot read the file ${path} (${(error as NodeJS.ErrnoException).code})`)
  }
}

export const isReference = (text: string): boolean => /^(env|file):./.test(text)
