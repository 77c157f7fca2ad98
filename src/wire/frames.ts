/** Frames on a byte stream: length, CRC-32 of the body, CRC-32 of these two (4 bytes each, little endian), and the body,
 * MessagePack. TCP's own sum lets one wrong packet in 65,536 pass: a client would be told a wrong token. */
import { crc32 } from "node:zlib"
import { Packr } from "msgpackr"

/** A longer frame is refused before it is received: its sender does not speak this protocol. */
export const MOST_FRAME_BYTES = 64 * 2 ** 20
const HEADER_BYTES = 12
const [BODY_CHECK_AT, HEADER_CHECK_AT] = [4, 8]

/** What arrived is no frame. */
export class FrameError extends Error {
  override readonly name = "FrameError"
}

// Plain maps and whole numbers, as any MessagePack library reads them.
const packr = new Packr({ useRecords: false, int64AsType: "number", encodeUndefinedAsNil: true })

export function encodeFrame(message: object): Buffer {
  const body = packr.pack(message)
  if (body.length > MOST_FRAME_BYTES)
    throw new FrameError(`a frame of ${body.length} bytes is longer than ${MOST_FRAME_BYTES}`)
  const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length)
  frame.writeUInt32LE(body.length, 0)
  frame.writeUInt32LE(crc32(body), BODY_CHECK_AT)
  frame.writeUInt32LE(crc32(frame.subarray(0, HEADER_CHECK_AT)), HEADER_CHECK_AT)
  body.copy(frame, HEADER_BYTES)
  return frame
}

/** Cuts what arrives into frames. */
export class FrameReader {
  #pieces: Buffer[] = []
  #bytes = 0

  /** No frame has begun that is not complete. */
  get empty(): boolean {
    return this.#bytes === 0
  }

  /** The messages that `piece` completes. Throws FrameError at the first that is none; the stream is of no use then. */
  push(piece: Buffer): unknown[] {
    this.#pieces.push(piece)
    this.#bytes += piece.length
    const messages: unknown[] = []
    for (;;) {
      const body = this.#next()
      if (body === null) return messages
      messages.push(decode(body))
    }
  }

  /** The body of a frame that is there in full, or null. */
  #next(): Buffer | null {
    if (this.#bytes < HEADER_BYTES) return null
    const head = this.#head()
    // A wrong length would have this end wait, for ever, for what never comes.
    if (crc32(head.subarray(0, HEADER_CHECK_AT)) !== head.readUInt32LE(HEADER_CHECK_AT))
      throw new FrameError("a frame's header is not what was sent")
    const length = head.readUInt32LE(0)
    if (length > MOST_FRAME_BYTES)
      throw new FrameError(`a frame of ${length} bytes is longer than ${MOST_FRAME_BYTES}`)
    if (this.#bytes < HEADER_BYTES + length) return null
    const all = this.#joined()
    const rest = all.subarray(HEADER_BYTES + length)
    this.#pieces = rest.length === 0 ? [] : [rest]
    this.#bytes = rest.length
    const body = all.subarray(HEADER_BYTES, HEADER_BYTES + length)
    if (crc32(body) !== all.readUInt32LE(BODY_CHECK_AT)) throw new FrameError("a frame is not what was sent")
    return body
  }

  #head(): Buffer {
    const [first] = this.#pieces
    return first!.length >= HEADER_BYTES ? first! : this.#joined()
  }

  /** Pieces of a long frame are joined once, when all of it is there. */
  #joined(): Buffer {
    if (this.#pieces.length > 1) this.#pieces = [Buffer.concat(this.#pieces)]
    return this.#pieces[0]!
  }
}

function decode(body: Buffer): unknown {
  try {
    return packr.unpack(body)
  } catch (cause) {
    throw new FrameError(`a frame cannot be read (${(cause as Error).message})`, { cause })
  }
}
