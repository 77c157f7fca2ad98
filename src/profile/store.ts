/** What was measured or learnt, kept as JSON in the user's cache folder: a file a kind of engine, named by all that it depends
 * on. Written whole or not at all. */
import { createHash } from "node:crypto"
import { mkdir, rename, writeFile } from "node:fs/promises"
import { dirname } from "node:path"

/** A name for all that `identity` says. */
export function nameOf(identity: readonly unknown[]): string {
  return createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 16)
}

/** Two at a time may save what has one name: engines alike. */
let saved = 0

export async function saveJson(path: string, value: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  const temporary = `${path}.${process.pid}-${++saved}.part`
  await writeFile(temporary, JSON.stringify(value))
  await rename(temporary, path)
}
