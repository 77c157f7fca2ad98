/** A certificate and its key, as files that are renewed while a server runs. */
import { readFileSync, unwatchFile, watchFile } from "node:fs"
import type { Server } from "node:https"
import { createSecureContext } from "node:tls"
import { UserError } from "../errors.ts"

export interface TlsFiles {
  cert: string
  key: string
}

export interface TlsPair {
  cert: string
  key: string
}

/** How often files are looked at: by their times and sizes, so that links which are turned to other files (Kubernetes' secrets) show. */
const LOOK_MS = 2000

/** Throws UserError where they cannot be read, or do not belong together; never with what is in them. */
export function readPair({ cert, key }: TlsFiles): TlsPair {
  const pair = { cert: readPart(cert, "certificate"), key: readPart(key, "key") }
  try {
    createSecureContext(pair)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UserError(
      `TLS: ${cert} and ${key} are no certificate and its key (${code}); give PEM files that belong together`,
    )
  }
  return pair
}

function readPart(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    throw new UserError(`TLS: cannot read the ${what} ${path} (${(error as NodeJS.ErrnoException).code})`)
  }
}

/** Connections from now on get what is in the files; those that are open go on with what they have. Throws UserError, and the server
 * keeps what it had. */
export function renewPair(server: Server, files: TlsFiles): void {
  server.setSecureContext(readPair(files))
}

/** Calls `changed` when one of them has. The answer ends it. */
export function watchPair({ cert, key }: TlsFiles, changed: () => void): () => void {
  const look = (now: { mtimeMs: number; size: number; ino: number }, before: typeof now) => {
    if (now.mtimeMs !== before.mtimeMs || now.size !== before.size || now.ino !== before.ino) changed()
  }
  for (const path of [cert, key]) watchFile(path, { interval: LOOK_MS, persistent: false }, look)
  return () => {
    for (const path of [cert, key]) unwatchFile(path, look)
  }
}
