/** Downloads that go on where the last one broke off. What has come is in a `.part` file beside the target, named after what
 * it is part of and the process that writes it, until it is whole. */
import { createHash, type Hash } from "node:crypto"
import { createReadStream } from "node:fs"
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { diskProblem, orUnwritable } from "./cache.ts"

export interface Download {
  target: string
  sizeBytes: number
  /** Changes when the file does. */
  etag: string
  /** The rest of it from there on. */
  from(byte: number): AsyncIterable<Uint8Array>
  /** Told at first, and after each piece. */
  onBytes(doneBytes: number): void
  /** Told the file's sum in hex; throws where it is wrong. */
  check(sha256: string): void
}

/** A writer that has written nothing for so long has ended, whatever process has its number now. */
const STALE_MS = 60_000
/** What this process is writing. */
const own = new Set<string>()

/** Puts the whole file at `target`. When it throws, what has come stays for the next try, unless its sum was wrong. */
export async function download({ target, sizeBytes, etag, from, onBytes, check }: Download): Promise<void> {
  const stem = `${basename(target)}.${createHash("sha256").update(`${etag} ${sizeBytes}`).digest("hex").slice(0, 12)}`
  const part = join(dirname(target), `${stem}.${process.pid}.${Math.random().toString(36).slice(2, 8)}.part`)
  own.add(part)
  try {
    await orUnwritable(target, () => mkdir(dirname(target), { recursive: true }))
    await takeOver(target, stem, part)
    const file = await orUnwritable(target, () => open(part, "a"))
    const hash = createHash("sha256")
    try {
      const begun = await readInto(hash, part, file, sizeBytes)
      await append(file, hash, { from, onBytes, begun })
    } finally {
      await file.close()
    }
    const { size } = await stat(part)
    if (size !== sizeBytes) throw new Error(`it broke off at ${size} of ${sizeBytes} bytes`)
    await checkOrRemove(part, hash, check)
    await orUnwritable(target, () => rename(part, target))
  } catch (error) {
    if ((await stat(part).catch(() => null))?.size === 0) await rm(part, { force: true })
    throw diskProblem(target, error)
  } finally {
    own.delete(part)
  }
}

/** Removes what earlier tries left of it. */
export async function removeParts(target: string): Promise<void> {
  for (const { path } of await leftBehind(target)) await rm(path, { force: true })
}

/** Makes the longest part that another process left this one's, and removes those that are of no use. */
async function takeOver(target: string, stem: string, part: string): Promise<void> {
  const left = (await leftBehind(target)).sort((a, b) => b.sizeBytes - a.sizeBytes)
  let taken = false
  for (const { path } of left) {
    if (taken || !basename(path).startsWith(`${stem}.`)) await rm(path, { force: true })
    // Another process may have been quicker.
    else
      taken = await rename(path, part).then(
        () => true,
        () => false,
      )
  }
}

async function leftBehind(target: string): Promise<{ path: string; sizeBytes: number }[]> {
  const folder = dirname(target)
  const pattern = new RegExp(`^${escaped(basename(target))}\\.(?:\\w+\\.)?(\\d+)\\.\\w+\\.part$`)
  const names = await readdir(folder).catch(() => [])
  const found = await Promise.all(
    names.map(async (name) => {
      const pid = pattern.exec(name)?.[1]
      const path = join(folder, name)
      if (pid === undefined || own.has(path)) return []
      const stats = await stat(path).catch(() => null)
      if (stats === null) return []
      const writes =
        Number(pid) !== process.pid && isAlive(Number(pid)) && Date.now() - stats.mtimeMs < STALE_MS
      return writes ? [] : [{ path, sizeBytes: stats.size }]
    }),
  )
  return found.flat()
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** The sum of what is there already; more than there should be is nothing. */
async function readInto(hash: Hash, part: string, file: FileHandle, sizeBytes: number): Promise<number> {
  const { size } = await file.stat()
  if (size > sizeBytes) {
    await file.truncate(0)
    return 0
  }
  if (size > 0)
    for await (const chunk of createReadStream(part, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  return size
}

async function append(
  file: FileHandle,
  hash: Hash,
  { from, onBytes, begun }: Pick<Download, "from" | "onBytes"> & { begun: number },
): Promise<void> {
  let doneBytes = begun
  onBytes(doneBytes)
  for await (const piece of from(begun)) {
    await file.write(piece)
    hash.update(piece)
    doneBytes += piece.byteLength
    onBytes(doneBytes)
  }
}

async function checkOrRemove(part: string, hash: Hash, check: (sum: string) => void): Promise<void> {
  try {
    check(hash.digest("hex"))
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}
