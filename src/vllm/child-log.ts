/** What a program that was started says: line by line, the last ones kept, all of them in a file that does not grow for ever. */
import { closeSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs"
import { dirname } from "node:path"
import type { Readable } from "node:stream"
import { stripVTControlCharacters } from "node:util"
import { UserError } from "../errors.ts"

export interface ChildLogOptions {
  /** Begun anew, and again when it is full: the one before is kept beside it, with .1 at its end. */
  file: string
  mostBytes?: number
  /** Each line, as it comes. */
  onLine: (line: string) => void
}

const MOST_BYTES = 64 * 1024 * 1024
const KEPT_LINES = 20
const LONGEST_LINE = 2000

export class ChildLog {
  readonly #options: ChildLogOptions
  readonly #last: string[] = []
  /** null once it is closed. */
  #file: number | null
  #bytes = 0

  /** Throws UserError where the file cannot be written. */
  constructor(options: ChildLogOptions) {
    this.#options = options
    const { file } = options
    try {
      mkdirSync(dirname(file), { recursive: true })
      this.#file = openSync(file, "w")
    } catch (error) {
      throw cannotWrite(file, error)
    }
  }

  get file(): string {
    return this.#options.file
  }
  /** The last lines that say something, oldest first. */
  get last(): readonly string[] {
    return this.#last
  }

  /** Everything that comes from it, a line at a time; a progress bar's states are lines. */
  read(stream: Readable): void {
    let rest = ""
    stream.setEncoding("utf8")
    stream.on("data", (text: string) => {
      this.#write(text)
      const lines = (rest + text).split(/[\r\n]+/)
      rest = lines.pop()!.slice(-LONGEST_LINE)
      for (const line of lines) this.#take(line)
    })
    stream.on("end", () => this.#take(rest))
  }

  /** A line of its own. */
  note(line: string): void {
    this.#write(`${line}\n`)
  }

  close(): void {
    if (this.#file !== null) closeSync(this.#file)
    this.#file = null
  }

  #take(raw: string): void {
    const line = stripVTControlCharacters(raw).trimEnd().slice(0, LONGEST_LINE)
    if (line.trim() === "") return
    this.#last.push(line)
    if (this.#last.length > KEPT_LINES) this.#last.shift()
    this.#options.onLine(line)
  }

  #write(text: string): void {
    if (this.#file === null) return
    const { file, mostBytes = MOST_BYTES } = this.#options
    try {
      this.#bytes += writeSync(this.#file, text)
      if (this.#bytes < mostBytes) return
      closeSync(this.#file)
      this.#file = null
      renameSync(file, `${file}.1`)
      this.#file = openSync(file, "w")
      this.#bytes = 0
    } catch {
      // A disk that is full takes no more of the log; what is logged goes on.
    }
  }
}

function cannotWrite(file: string, error: unknown): UserError {
  const { code } = error as NodeJS.ErrnoException
  return new UserError(`cannot write ${file} (${code}); choose another file with --vllm-log`, {
    cause: error,
  })
}

const PREFIX =
  /^(?:\([\w ]*pid=[^)]*\)\s*)?(?:(?:DEBUG|INFO|WARNING|ERROR) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]*\])?\s*)?/

/** What a line of vLLM's says, without where and when; null where it says nothing (a logo, a rule). */
export function saidBy(line: string): string | null {
  const said = line.replace(PREFIX, "").trim()
  return /[A-Za-z]{3}/.test(said) ? said : null
}
