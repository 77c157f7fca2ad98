/** Files of any size as pieces of whole lines, gzipped or not: a published trace can be longer than a string may be.
 * Synchronous, since plans are made inside simulations, which run without a pause. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs"
import { constants, gunzipSync } from "node:zlib"
import { UserError } from "../errors.ts"

const CHUNK_BYTES = 1 << 20
const NEWLINE = 10
const GZIP_MAGIC = [0x1f, 0x8b]

/** The text of a file in order. Every piece ends with a newline, but the last where the file does not. */
export function* textPieces(path: string): Generator<string, void, void> {
  let rest: Buffer = Buffer.alloc(0)
  let first = true
  for (const chunk of chunksOf(path)) {
    const end = chunk.lastIndexOf(NEWLINE) + 1
    if (end > 0) {
      yield textOf(Buffer.concat([rest, chunk.subarray(0, end)]), first)
      first = false
      rest = Buffer.alloc(0)
    }
    rest = Buffer.concat([rest, chunk.subarray(end)])
  }
  if (rest.length > 0) yield textOf(rest, first)
}

/** Some programs begin a file with a byte order mark. */
function textOf(bytes: Buffer, first: boolean): string {
  const text = bytes.toString("utf8")
  return first ? text.replace(/^\uFEFF/, "") : text
}

/** Every failure is the user's to mend. */
export function cannotRead(path: string, error: unknown): UserError {
  const { code, message } = error as NodeJS.ErrnoException
  return new UserError(`cannot read ${path}: ${code === "ENOENT" ? "no such file" : message}`)
}

/** The file's bytes, unpacked. */
function* chunksOf(path: string): Generator<Buffer, void, void> {
  let file: number
  try {
    file = openSync(path, "r")
  } catch (error) {
    throw cannotRead(path, error)
  }
  try {
    for (let first = true; ; first = false) {
      const chunk = readChunk(file, path)
      if (chunk.length === 0) return
      if (first && GZIP_MAGIC.every((byte, i) => chunk[i] === byte)) return yield* slices(unpacked(path))
      yield chunk
    }
  } finally {
    closeSync(file)
  }
}

function readChunk(file: number, path: string): Buffer {
  // A new one each time: what was handed out is still read from.
  const buffer = Buffer.alloc(CHUNK_BYTES)
  try {
    return buffer.subarray(0, readSync(file, buffer))
  } catch (error) {
    throw cannotRead(path, error)
  }
}

/** Node unpacks only whole files synchronously. One whose end is missing gives what there is of it. */
function unpacked(path: string): Buffer {
  try {
    return gunzipSync(readFileSync(path), { finishFlush: constants.Z_SYNC_FLUSH })
  } catch (error) {
    throw cannotRead(path, error)
  }
}

function* slices(bytes: Buffer): Generator<Buffer, void, void> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES)
}
