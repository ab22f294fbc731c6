// The people's API. A refusal of the boot service arrives as an ApiError with
// the boot service's own words.

import { contact } from './contact.svelte'

export class ApiError extends Error {
  // status is HTTP's, or 0 when there was no answer.
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

const answerLimit = 30_000 // ms; commits may take some

export async function request<T>(method: 'GET' | 'POST', path: string, body?: unknown, limit = answerLimit): Promise<T> {
  const text = await (await send(method, path, body, limit)).text()
  return (text === '' ? undefined : JSON.parse(text)) as T
}

// download offers an answer as a file.
export async function download(path: string, name: string) {
  const answer = await send('GET', path, undefined, answerLimit)
  save(await answer.blob(), name)
}

// save offers a file to the person.
export function save(content: Blob, name: string) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(content)
  link.download = name
  link.click()
  // Not at once: the browser begins the download after this returns.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}

async function send(method: string, path: string, body: unknown, limit: number): Promise<Response> {
  let answer: Response
  try {
    answer = await fetch(path, {
      method,
      signal: AbortSignal.timeout(limit),
      // Proves that the request comes from our own page: a form of another
      // site can't set it.
      headers: { 'X-Rackseed': '1', ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
  } catch (e) {
    // It may have taken what it did not answer.
    const late = method !== 'GET' && e instanceof DOMException && e.name === 'TimeoutError'
    throw new ApiError(
      0,
      late
        ? `The boot service did not answer within ${limit / 1000} s. It may be done all the same: look before you try again.`
        : 'The boot service does not answer. Is the appliance on, and this computer on its network?',
    )
  }
  contact.heard()
  if (!answer.ok) {
    throw new ApiError(answer.status, reason(await answer.text()) || `The boot service answered ${answer.status}.`)
  }
  return answer
}

// reason finds the sentence in a problem document (RFC 9457), with what each
// field lacks.
function reason(text: string): string {
  try {
    const problem = JSON.parse(text) as { detail?: string; title?: string; errors?: { message?: string; location?: string }[] }
    const fields = (problem.errors ?? []).map((e) => [e.location, e.message].filter(Boolean).join(': '))
    return [problem.detail ?? problem.title ?? '', ...fields].filter(Boolean).join('; ')
  } catch {
    return text
  }
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
