/** Published request traces in, whatever their format (trace-formats.ts), in order of time. A malformed line is
 * reported by file, line and remedy. */
import { readFileSync } from "node:fs"
import { parse } from "csv-parse/sync"
import { UserError } from "../errors.ts"
import { Line, TRACE_FORMATS, type TraceFormat, type TraceRow } from "./trace-formats.ts"

export type { PromptPrefix, TraceRow } from "./trace-formats.ts"

export interface Trace {
  path: string
  rows: TraceRow[]
}

export function readTrace(path: string): Trace {
  return { path, rows: parseTrace(readText(path), path) }
}

/** Reads a text file; every failure is the user's to mend. */
export function readText(path: string): string {
  try {
    // Some programs begin a file with a byte order mark.
    return readFileSync(path, "utf8").replace(/^\uFEFF/, "")
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    throw new UserError(
      `cannot read ${path}: ${code === "ENOENT" ? "no such file" : (error as Error).message}`,
    )
  }
}

interface Entry {
  record: Record<string, unknown>
  line: number
}

/** `name` is what error messages call the file. Rows are sorted by time where there is one. */
export function parseTrace(text: string, name: string): TraceRow[] {
  const kind = text.trimStart().startsWith("{") ? "jsonl" : "csv"
  const records = kind === "jsonl" ? jsonRecords(text, name) : csvRecords(text, name)
  const first = records[0]
  if (first === undefined) throw new UserError(`${name}: no requests in it; expected one request a line`)
  const format = TRACE_FORMATS.find(
    (entry) => entry.kind === kind && entry.columns.every((column) => column in first.record),
  )
  if (format === undefined) throw unknownFormat(first, name)
  const names = new Map<unknown, number>()
  const rows: TraceRow[] = []
  for (const { record, line } of records) {
    const row = format.row(new Line(record, `${name}:${line}`, names))
    if (row !== null) rows.push(row)
  }
  if (rows.length === 0) throw new UserError(`${name}: no request in it was answered; use another trace`)
  return fromStart(rows)
}

function csvRecords(text: string, name: string): Entry[] {
  try {
    const records: { record: Record<string, string>; info: { lines: number } }[] = parse(text, {
      columns: true,
      bom: true,
      trim: true,
      skip_empty_lines: true,
      info: true,
    })
    return records.map(({ record, info }) => ({ record, line: info.lines }))
  } catch (error) {
    throw new UserError(`${name}: ${(error as Error).message}; mend or delete that line`)
  }
}

function jsonRecords(text: string, name: string): Entry[] {
  const records: Entry[] = []
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue
    let record: unknown = null
    try {
      record = JSON.parse(line)
    } catch {
      // Reported below, like every other line that is no object.
    }
    if (typeof record !== "object" || record === null || Array.isArray(record))
      throw new UserError(`${name}:${i + 1}: not a JSON object; mend or delete the line`)
    records.push({ record: record as Record<string, unknown>, line: i + 1 })
  }
  return records
}

function unknownFormat(first: Entry, name: string): UserError {
  const describe = (format: TraceFormat) => `${format.columns.join(",")} (${format.name})`
  return new UserError(
    `${name}:1: unknown columns ${Object.keys(first.record).join(",")}; expected ${TRACE_FORMATS.map(describe).join(" or ")}`,
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
