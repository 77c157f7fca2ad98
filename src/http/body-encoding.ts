/** Bodies that come compressed (`content-encoding`): decoded as they arrive, so that what they become is bounded chunk by chunk. */
import type { Readable } from "node:stream"
import { createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from "node:zlib"
import { type UserError, userError } from "../errors.ts"

const DECODERS: Readonly<Record<string, () => ReturnType<typeof createGunzip>>> = {
  gzip: createGunzip,
  "x-gzip": createGunzip,
  br: createBrotliDecompress,
  deflate: createInflate,
  // Node has it from 22.15 on.
  ...(typeof createZstdDecompress === "function" && { zstd: createZstdDecompress }),
}

/** As a client may name them; what a 415 says in its header. */
export const KNOWN_ENCODINGS = Object.keys(DECODERS).filter((name) => !name.startsWith("x-"))

export interface Decoded {
  stream: Readable
  /** No more of it is wanted: what still comes is let go by, undecoded. */
  stop(): void
}

/** null: it comes as it is. Throws a 415 for an encoding that is not known, or several. */
export function decoded(payload: Readable, header: string | undefined): Decoded | null {
  const encoding = (header ?? "").trim().toLowerCase()
  if (encoding === "" || encoding === "identity") return null
  const decoder = Object.hasOwn(DECODERS, encoding) ? DECODERS[encoding]!() : null
  if (decoder === null) {
    const known = [...KNOWN_ENCODINGS, "identity"].join(", ")
    throw userError("unsupported_content_encoding", { encoding: encoding.slice(0, 60), known })
  }
  payload.pipe(decoder)
  payload.once("close", () => {
    if (!payload.readableEnded) decoder.destroy(new Error("the connection ended"))
  })
  const stop = () => {
    payload.unpipe(decoder)
    payload.resume()
    decoder.destroy()
  }
  return { stream: decoder, stop }
}

/** What is told of an error of a decoder; null: it is none. */
export function decodingError(cause: unknown): UserError | null {
  const { code = "" } = (cause ?? {}) as NodeJS.ErrnoException
  if (!/^(Z_|ERR_BROTLI|ERR__ERROR|ZSTD_)/.test(code)) return null
  return userError("invalid_content_encoding", { detail: (cause as Error).message }, { cause })
}
