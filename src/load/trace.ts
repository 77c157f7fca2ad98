/** Published request traces in, whatever their format (trace-formats.ts), in order of time. A malformed line is
 * reported by file, line and remedy; what is no request is skipped and counted. */
import { readFileSync } from "node:fs"
import { type CsvError, parse } from "csv-parse/sync"
import { UserError } from "../errors.ts"
import { cannotRead, textPieces } from "./trace-file.ts"
import { Line, PrefixNames, TRACE_FORMATS, type TraceFormat, type TraceRow } from "./trace-formats.ts"

export type { PromptPrefix, TraceRow } from "./trace-formats.ts"

/** Lines that are no request. */
export interface Skipped {
  /** Without a prompt or an answer: failures of the service, as a rule. */
  empty: number
  /** The last line, broken off: the file was not downloaded to its end. */
  cut: number
}

export interface Trace {
  path: string
  rows: TraceRow[]
  skipped: Skipped
}

/** Rows are sorted by time where there is one. */
export function readTrace(path: string): Trace {
  return traceOf(textPieces(path), path)
}

/** `name` is what error messages call the file. */
export function parseTrace(text: string, name: string): Trace {
  return traceOf([text], name)
}

/** Reads a text file; every failure is the user's to mend. */
export function readText(path: string): string {
  try {
    // Some programs begin a file with a byte order mark.
    return readFileSync(path, "utf8").replace(/^\uFEFF/, "")
  } catch (error) {
    throw cannotRead(path, error)
  }
}

function traceOf(pieces: Iterable<string>, path: string): Trace {
  const reader = new Reader(path)
  for (const piece of pieces) reader.take(piece)
  const { rows, skipped } = reader
  if (rows.length === 0) {
    const none = skipped.empty > 0 ? "every request in it has no prompt or no answer" : "no requests in it"
    throw new UserError(`${path}: ${none}; expected one request a line, with its tokens`)
  }
  return { path, rows: fromStart(rows), skipped }
}

interface Entry {
  record: Record<string, unknown>
  line: number
}

/** Takes a file in pieces of whole lines. */
class Reader {
  readonly rows: TraceRow[] = []
  readonly skipped: Skipped = { empty: 0, cut: 0 }
  readonly #name: string
  readonly #prefixes = new PrefixNames()
  #kind: "csv" | "jsonl" | null = null
  /** Of a CSV file: its line of column names. */
  #header = ""
  #format: TraceFormat | undefined
  /** Lines of the pieces so far. */
  #lines = 0

  constructor(name: string) {
    this.#name = name
  }

  take(piece: string): void {
    const end = piece.lastIndexOf("\n") + 1
    if (end > 0) this.#whole(piece.slice(0, end))
    if (end < piece.length) this.#last(piece.slice(end))
  }

  /** A line without its newline is the file's last one, complete or broken off. */
  #last(line: string): void {
    const others = this.rows.length + this.skipped.empty
    try {
      this.#whole(line)
    } catch (error) {
      const complete = this.#kind === "jsonl" && line.trimEnd().endsWith("}")
      if (!(error instanceof UserError) || others === 0 || complete) throw error
      this.skipped.cut++
    }
  }

  #whole(text: string): void {
    const body = this.#kind === null ? this.#begin(text) : text
    const records = this.#kind === "jsonl" ? this.#jsonRecords(body) : this.#csvRecords(body)
    this.#lines += newlinesIn(body)
    for (const { record, line } of records) {
      this.#format ??= formatOf(record, this.#kind!, this.#name)
      const row = this.#format.row(new Line(record, `${this.#name}:${line}`, this.#prefixes))
      if (row.promptTokens > 0 && row.outputTokens > 0) this.rows.push(row)
      else this.skipped.empty++
    }
  }

  /** Finds out what kind of file it is. Returns what is left after empty lines and column names. */
  #begin(text: string): string {
    const start = text.search(/\S/)
    if (start < 0) return this.#passed(text, text.length)
    this.#kind = text[start] === "{" ? "jsonl" : "csv"
    if (this.#kind === "jsonl") return text
    const end = text.indexOf("\n", start) + 1 || text.length
    this.#header = `${text.slice(start, end).trimEnd()}\n`
    return this.#passed(text, end)
  }

  #passed(text: string, end: number): string {
    this.#lines += newlinesIn(text.slice(0, end))
    return text.slice(end)
  }

  #csvRecords(text: string): Entry[] {
    // The column names stand before every piece: line 1 of what is parsed.
    const before = this.#lines - 1
    try {
      const records: { record: Record<string, string>; info: { lines: number } }[] = parse(
        this.#header + text,
        {
          columns: true,
          trim: true,
          skip_empty_lines: true,
          info: true,
          record_delimiter: ["\n", "\r\n"],
        },
      )
      return records.map(({ record, info }) => ({ record, line: before + info.lines }))
    } catch (error) {
      const { message, lines } = error as CsvError
      const line = typeof lines === "number" ? `:${before + lines}` : ""
      const what = message.replace(/ (on|at) line \d+/, "")
      throw new UserError(`${this.#name}${line}: ${what}; mend or delete that line`)
    }
  }

  #jsonRecords(text: string): Entry[] {
    const records: Entry[] = []
    for (const [i, line] of text.split("\n").entries()) {
      if (line.trim() === "") continue
      let record: unknown = null
      try {
        record = JSON.parse(line)
      } catch {
        // Reported below, like every other line that is no object.
      }
      const number = this.#lines + i + 1
      if (typeof record !== "object" || record === null || Array.isArray(record))
        throw new UserError(`${this.#name}:${number}: not a JSON object; mend or delete the line`)
      records.push({ record: record as Record<string, unknown>, line: number })
    }
    return records
  }
}

function newlinesIn(text: string): number {
  let count = 0
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count++
  return count
}

function formatOf(first: Record<string, unknown>, kind: "csv" | "jsonl", name: string): TraceFormat {
  const format = TRACE_FORMATS.find(
    (entry) => entry.kind === kind && entry.columns.every((column) => column in first),
  )
  if (format !== undefined) return format
  const describe = (known: TraceFormat) => `${known.columns.join(",")} (${known.name})`
  throw new UserError(
    `${name}:1: unknown columns ${Object.keys(first).join(",")}; expected ${TRACE_FORMATS.map(describe).join(" or ")}`,
  )
}

/** In order of time, the first at 0. */
function fromStart(rows: TraceRow[]): TraceRow[] {
  if (rows[0]!.atMs === undefined) return rows
  rows.sort((a, b) => a.atMs! - b.atMs!)
  const start = rows[0]!.atMs
  for (const row of rows) row.atMs = row.atMs! - start
  return rows
}
