"use client";
// A tool's question to the user during a call. A waiting call with the state `awaiting_input` has a `question`.

export type Question = {
  id: string;
  /** The JSON Schema of the answer: a flat object. */
  schema?: { readonly [keyword: string]: unknown };
  /** Or the URL of a page to open. */
  url?: string;
};
export type Answer = { action: "accept" | "decline" | "cancel"; content?: Record<string, unknown> };

/** A form for a tool's question: a field for each property of the schema, or a link to a page. */
export function Asking({ id, schema, url, message, answer }: Question & { message?: string; answer: (id: string, said: Answer) => void }) {
  const fields = Object.entries((schema?.["properties"] ?? {}) as Record<string, { type?: string; title?: string }>);
  const accept = (data: FormData) => {
    const read = (name: string, type?: string) =>
      type === "boolean" ? data.has(name) : type === "number" || type === "integer" ? Number(data.get(name)) : data.get(name);
    const given = fields.filter(([name, { type }]) => type === "boolean" || data.get(name));
    const content = Object.fromEntries(given.map(([name, { type }]) => [name, read(name, type)]));
    answer(id, url ? { action: "accept" } : { action: "accept", content });
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        accept(new FormData(event.currentTarget));
      }}
    >
      <p>{message}</p>
      {url && (
        <a href={url} target="_blank" rel="noopener noreferrer">
          {url}
        </a>
      )}
      {fields.map(([name, { title, type }]) => (
        <label key={name}>
          {title ?? name} <input name={name} type={type === "boolean" ? "checkbox" : "text"} />
        </label>
      ))}
      <button>Send</button>
      <button type="button" onClick={() => answer(id, { action: "decline" })}>
        Decline
      </button>
    </form>
  );
}
