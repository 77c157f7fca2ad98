/** A client that is tried, and what is called of it. */
import { readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import type { ClientServer } from "./server.ts"

export interface Client {
  name: string
  /** What it is installed as; the first one's version is shown. */
  packages: readonly string[]
  /** The endpoints that it asks. */
  asks: string
  /** Each fails where it does not get what its caller would want. */
  calls: Readonly<Record<string, (server: ClientServer) => Promise<void>>>
}

const ROOT = resolve(import.meta.dirname, "../..")

/** As it is installed. */
export function versionOf(name: string): string {
  const path = join(ROOT, "node_modules", name, "package.json")
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version
}

export interface Shown {
  name: string
  versions: readonly string[]
  asks: string
  calls: readonly string[]
}

/** Its row in docs/clients.md. */
export function rowOf({ name, versions, asks, calls }: Shown): string {
  const code = (texts: readonly string[]) => texts.map((text) => `\`${text}\``).join(", ")
  return `| ${name} | ${versions.join(", ")} | ${code(asks.split(", "))} | ${calls.join("; ")} |`
}
