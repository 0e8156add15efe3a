using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.IO.Pipelines;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Net.Http.Headers;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Usage of serverless models: in from inference servers, out as reports. Ours: the public API names no paths for these.</summary>
internal static class UsageApi
{
    public const string EventsPath = "/v1/usage/events";
    public const string One = "application/cloudevents+json";
    public const string Batch = "application/cloudevents-batch+json";
    public const string Lines = "application/x-ndjson";
    public const string Binary = "application/json";

    public const int LargestBodyBytes = 32 * 1024 * 1024;
    public const int MostLines = 100_000;

    /// <summary>How long a gateway may keep what it was told of a balance.</summary>
    private static readonly TimeSpan StandingCache = TimeSpan.FromSeconds(1);

    public static void MapUsageApi(this IEndpointRouteBuilder routes)
    {
        routes.MapPost(EventsPath, IngestAsync).Needing(Permission.ReportUsage).WithTags("usage").Accepts<CloudEventJson>(One, Batch, Lines, Binary)
            .Produces<UsageAnswer>().WithMetadata(new RequestSizeLimitAttribute(LargestBodyBytes));
        var billing = routes.MapGroup("/v1/billing").WithTags("usage").Refusing(404);
        billing.MapGet("/standing", GetStandingAsync).Needing(Permission.Identify).Produces<StandingAnswer>().Refusing(402);
        billing.MapGet("/serverless-usage", GetUsageAsync).Produces<ServerlessUsageAnswer>();
        billing.MapGet("/serverless-pricing", ListPricingAsync).Produces<ServerlessPricingAnswer>();
    }

    private static async Task<IResult> IngestAsync(
        HttpContext context, TokenMeter meter, IngestionQueue queue, WebMetrics metrics, TimeProvider time, CancellationToken cancellation)
    {
        using var turn = await queue.EnterAsync(cancellation);
        if (turn is null)
        {
            metrics.UsageRefused.Inc();
            return Problem.Overloaded(IngestionQueue.RetryAfter);
        }

        var began = time.GetTimestamp();
        var ingestion = new Ingestion(meter, metrics, time);
        var (answer, refusal) = MediaTypeHeaderValue.TryParse(context.Request.ContentType, out var type) ? type.MediaType.Value?.ToLowerInvariant() switch
        {
            Lines => await ReadLinesAsync(context.Request.BodyReader, ingestion, cancellation),
            Batch => await ReadBatchAsync(context.Request, ingestion, cancellation),
            One => await ReadOneAsync(context.Request, ingestion, null, cancellation),
            Binary => await ReadOneAsync(context.Request, ingestion, name => Header(context.Request, name), cancellation),
            _ => (null, Problem.NoUsage()),
        } : (null, Problem.NoUsage());
        metrics.IngestSeconds.Observe(time.GetElapsedTime(began).TotalSeconds);
        return refusal ?? TypedResults.Ok(answer);
    }

    /// <summary>One event, as JSON or in headers: what is wrong with it is wrong with the request.</summary>
    private static async Task<(UsageAnswer? Answer, IResult? Refusal)> ReadOneAsync(
        HttpRequest request, Ingestion ingestion, Func<string, string?>? headers, CancellationToken cancellation)
    {
        if (headers is not null && headers("specversion") is null) return (null, Problem.NoUsage());
        using var body = await Body.ReadAsync(request, cancellation);
        try
        {
            ingestion.Add(Parse(body.Bytes.Span));
        }
        catch (JsonException wrong)
        {
            return (null, Problem.Malformed($"The body is not JSON: line {wrong.LineNumber + 1}, byte {wrong.BytePositionInLine + 1}."));
        }

        await ingestion.SendAsync(cancellation);
        var answer = ingestion.Answer();
        return answer.Results is [{ Reason: { } reason, Detail: { } detail }] ? (null, Problem.UsageRejected(reason, detail)) : (answer, null);

        ReadEvent Parse(ReadOnlySpan<byte> bytes)
        {
            if (headers is not null) return ingestion.Reader.ReadBinary(headers, bytes);
            var reader = new Utf8JsonReader(bytes);
            reader.Read();
            var one = ingestion.Reader.Read(ref reader);
            while (reader.Read()) { }
            return one;
        }
    }

    private static async Task<(UsageAnswer? Answer, IResult? Refusal)> ReadBatchAsync(HttpRequest request, Ingestion ingestion, CancellationToken cancellation)
    {
        using var body = await Body.ReadAsync(request, cancellation);
        try
        {
            if (!ReadAll(body.Bytes.Span)) return (null, Problem.Malformed("A batch is a JSON array of events."));
        }
        catch (JsonException wrong)
        {
            return (null, Problem.Malformed($"The body is not JSON: line {wrong.LineNumber + 1}, byte {wrong.BytePositionInLine + 1}. Nothing of it was counted."));
        }

        if (ingestion.Waiting > TokenMeter.MaxBatch)
        {
            return (null, Problem.Malformed($"A batch has at most {TokenMeter.MaxBatch} events, and this one {ingestion.Waiting}: send several, or the same as {Lines}. Nothing of it was counted."));
        }

        await ingestion.SendAsync(cancellation);
        return (ingestion.Answer(), null);

        bool ReadAll(ReadOnlySpan<byte> bytes)
        {
            var reader = new Utf8JsonReader(bytes);
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartArray) return false;
            while (reader.Read() && reader.TokenType != JsonTokenType.EndArray) ingestion.Add(ingestion.Reader.Read(ref reader));
            while (reader.Read()) { }
            return true;
        }
    }

    /// <summary>One event a line, sent on as they come: what is in memory is one batch, however many lines there are.</summary>
    private static async Task<(UsageAnswer? Answer, IResult? Refusal)> ReadLinesAsync(PipeReader body, Ingestion ingestion, CancellationToken cancellation)
    {
        var (lines, tooLong) = (0, false);
        while (true)
        {
            var read = await body.ReadAsync(cancellation);
            var rest = read.Buffer;
            while (TryReadLine(ref rest, read.IsCompleted, out var line))
            {
                tooLong |= line.Length > Body.LongestLine;
                if (!tooLong && IsBlank(line)) continue;
                if (++lines > MostLines)
                {
                    body.AdvanceTo(read.Buffer.End);
                    return (null, Problem.Malformed($"A request has at most {MostLines} lines: send the rest in others. What came before was counted, and is a duplicate when it comes again."));
                }

                ingestion.Add(tooLong ? CloudEventReader.Unreadable($"Line {lines} has more than {Body.LongestLine} bytes.") : ReadLine(line, lines, ingestion.Reader));
                tooLong = false;
                if (ingestion.Waiting == TokenMeter.MaxBatch) await ingestion.SendAsync(cancellation);
            }

            if (rest.Length > Body.LongestLine)
            {
                // The rest of it is not kept.
                tooLong = true;
                rest = rest.Slice(rest.End);
            }

            body.AdvanceTo(rest.Start, rest.End);
            if (!read.IsCompleted) continue;
            if (tooLong) ingestion.Add(CloudEventReader.Unreadable($"Line {lines + 1} has more than {Body.LongestLine} bytes."));
            await ingestion.SendAsync(cancellation);
            return (ingestion.Answer(), null);
        }
    }

    private static bool TryReadLine(ref ReadOnlySequence<byte> rest, bool isLast, out ReadOnlySequence<byte> line)
    {
        if (rest.PositionOf((byte)'\n') is { } end)
        {
            line = rest.Slice(0, end);
            rest = rest.Slice(rest.GetPosition(1, end));
            return true;
        }

        line = rest;
        if (!isLast || rest.IsEmpty) return false;
        rest = rest.Slice(rest.End);
        return true;
    }

    private static bool IsBlank(ReadOnlySequence<byte> line)
    {
        foreach (var part in line)
        {
            if (part.Span.IndexOfAnyExcept(" \t\r"u8) >= 0) return false;
        }

        return true;
    }

    private static ReadEvent ReadLine(ReadOnlySequence<byte> line, int number, CloudEventReader events)
    {
        try
        {
            var reader = new Utf8JsonReader(line);
            reader.Read();
            var one = events.Read(ref reader);
            while (reader.Read()) { }
            return one;
        }
        catch (JsonException wrong)
        {
            return CloudEventReader.Unreadable($"Line {number} is not JSON from its byte {wrong.BytePositionInLine + 1} on.");
        }
    }

    /// <summary>CloudEvents has what is not visible ASCII percent-encoded in headers.</summary>
    private static string? Header(HttpRequest request, string attribute)
        => request.Headers[$"ce-{attribute}"] is [{ } value] ? Uri.UnescapeDataString(value) : null;

    private static async Task<IResult> GetStandingAsync(
        string? userId, HttpContext context, Caller caller, AccountLookup accounts, TimeProvider time, CancellationToken cancellation)
    {
        // A gateway asks for whoever sends it a request; everybody else for their own.
        var account = string.IsNullOrEmpty(userId) ? caller.Account : new AccountId(userId);
        if (!caller.May(Permission.ReportUsage) && !caller.MayActFor(userId, out account, out var refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is not { } standing) return Problem.AccountUnknown(account);
        var remaining = accounts.BalanceOf(standing);
        if (remaining <= Money.Zero) return Problem.BalanceExhausted(account, remaining) with { CacheFor = StandingCache };
        context.Response.Headers.CacheControl = Problem.CacheControl(StandingCache);
        return TypedResults.Ok(new StandingAnswer(account.Value, MoneyJson.From(remaining), time.GetUtcNow().UtcDateTime));
    }

    private static async Task<IResult> GetUsageAsync(
        string? userId, string? month, Caller caller, AccountLookup accounts, ServerlessUsage usage, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        BillingMonth? asked = null;
        if (!string.IsNullOrEmpty(month))
        {
            if (!BillingMonth.TryParse(month, out var one)) return Problem.Invalid("month", "month is a year and a month, such as 2026-03; left out, it is all time.");
            asked = one;
        }

        return await accounts.FindAsync(account, cancellation) is not null && await usage.ReadAsync(account, asked, cancellation) is { } report
            ? TypedResults.Ok(ServerlessUsageAnswer.From(report, asked))
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> ListPricingAsync(Prices prices, CancellationToken cancellation)
        => TypedResults.Ok(new ServerlessPricingAnswer([.. (await prices.CurrentTokensAsync(cancellation)).Select(TokenPriceJson.From)]));

    /// <summary>A whole body, in a buffer that is lent.</summary>
    private sealed class Body(byte[] buffer, int length) : IDisposable
    {
        /// <summary>Of one event.</summary>
        public const int LongestLine = 64 * 1024;

        private const int FirstGuess = 256 * 1024;

        /// <summary>As many as there are turns. The shared pool keeps some for each thread that ever returned one.</summary>
        private static readonly ArrayPool<byte> Buffers = ArrayPool<byte>.Create(LargestBodyBytes, IngestionQueue.AtOnce);

        public ReadOnlyMemory<byte> Bytes { get; } = buffer.AsMemory(0, length);

        public void Dispose() => Buffers.Return(buffer);

        public static async Task<Body> ReadAsync(HttpRequest request, CancellationToken cancellation)
        {
            var buffer = Buffers.Rent((int)Math.Min((request.ContentLength ?? FirstGuess) + 1, LargestBodyBytes));
            var length = 0;
            try
            {
                while (true)
                {
                    var read = await request.Body.ReadAsync(buffer.AsMemory(length), cancellation);
                    if (read == 0) return new Body(buffer, length);
                    length += read;
                    if (length < buffer.Length) continue;
                    var larger = Buffers.Rent(buffer.Length * 2);
                    buffer.AsSpan(0, length).CopyTo(larger);
                    Buffers.Return(buffer);
                    buffer = larger;
                }
            }
            catch
            {
                Buffers.Return(buffer);
                throw;
            }
        }
    }

    /// <summary>The events of one request: those that wait to be sent, and what became of all that came.</summary>
    private sealed class Ingestion(TokenMeter meter, WebMetrics metrics, TimeProvider time)
    {
        private readonly TokenMeter meter = meter;
        private readonly WebMetrics metrics = metrics;
        private readonly TimeProvider time = time;
        private readonly List<ReadEvent> waiting = [];
        private readonly List<UsageResultJson> results = [];

        public CloudEventReader Reader { get; } = new();

        public int Waiting => waiting.Count;

        public void Add(ReadEvent one) => waiting.Add(one);

        public async Task SendAsync(CancellationToken cancellation)
        {
            var usage = new List<UsageEvent>(waiting.Count);
            foreach (var one in waiting)
            {
                if (one.Usage is not null) usage.Add(one.Usage);
            }

            // More than a batch has come of a caller's mistake only, and is refused before.
            var receipt = await meter.IngestAsync(usage, cancellation);
            metrics.CountUsage(usage, receipt, time.GetUtcNow());
            var i = 0;
            foreach (var one in waiting)
            {
                var outcome = one.Usage is null ? one.Refused! : receipt.Outcomes[i++];
                if (one.Usage is null) metrics.CountUnreadable();
                results.Add(UsageResultJson.From(one.Id, outcome));
            }

            waiting.Clear();
        }

        public UsageAnswer Answer() => new(
            results.Count(one => one.Status == UsageResultJson.Accepted), results.Count(one => one.Status == UsageResultJson.Duplicate),
            results.Count(one => one.Status == UsageResultJson.Rejected), results);
    }
}

/// <summary>One usage event, CloudEvents 1.0. Its identity is <paramref name="Source"/> and <paramref name="Id"/>.</summary>
/// <param name="Type"><c>ai.tensormesh.serverless.usage.v1</c>.</param>
/// <param name="Time">When the answer was complete: at this instant's price it is charged.</param>
internal sealed record CloudEventJson(string Specversion, string Id, string Source, string Type, DateTimeOffset Time, UsageDataJson Data);

/// <param name="InputTokens">Of the prompt, those from the cache too.</param>
/// <param name="CachedTokens">Which of those came from the KV cache.</param>
/// <param name="Usage">In place of the three counts: the usage object of the answer, as the OpenAI API has it.</param>
internal sealed record UsageDataJson(
    string Account, string Model, long? InputTokens, long? CachedTokens, long? OutputTokens, JsonElement? Usage, string? RequestId, string? ApiKeyId);

/// <param name="Results">Of each event, in the order in which they came.</param>
internal sealed record UsageAnswer(int Accepted, int Duplicate, int Rejected, IReadOnlyList<UsageResultJson> Results);

/// <param name="Status"><c>ACCEPTED</c>: counted, and on disk. <c>DUPLICATE</c>: counted before. <c>REJECTED</c>: not counted, for the reason that is given; sent again as it
/// is it will be rejected again.</param>
internal sealed record UsageResultJson(string Id, string Status)
{
    public const string Accepted = "ACCEPTED";
    public const string Duplicate = "DUPLICATE";
    public const string Rejected = "REJECTED";

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? Reason { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public string? Detail { get; init; }

    public static UsageResultJson From(string id, UsageOutcome outcome) => outcome switch
    {
        UsageOutcome.Rejected refused => new(id, Rejected) { Reason = ReasonOf(refused.Reason), Detail = refused.Detail },
        UsageOutcome.Duplicate => new(id, Duplicate),
        _ => new(id, Accepted),
    };

    public static string ReasonOf(UsageRefusal reason) => Wire.EnumName("", reason.ToString())[1..];
}

/// <param name="Remaining">What the account can still spend.</param>
internal sealed record StandingAnswer(string Account, MoneyJson Remaining, DateTime AsOf);

/// <param name="Month">Empty: all time.</param>
/// <param name="CacheHitRate">Cached over input tokens, 0 to 1.</param>
/// <param name="Savings">What the lower price of cached tokens saved: cached x (input rate - cached rate).</param>
internal sealed record ServerlessUsageAnswer(
    string Month, string TimeZone, long InputTokens, long OutputTokens, long CachedTokens, MoneyJson TotalCost, MoneyJson Savings, decimal CacheHitRate,
    IReadOnlyList<ModelUsageJson> Models, IReadOnlyList<UsageDayJson> Days)
{
    public static ServerlessUsageAnswer From(UsageReport report, BillingMonth? month) => new(
        month?.ToString() ?? "", report.TimeZone, report.Tokens.Input, report.Tokens.Output, report.Tokens.Cached, MoneyJson.From(report.Cost), MoneyJson.From(report.Saved),
        Rate(report.Tokens), [.. report.Models.OrderByDescending(one => one.Cost).ThenBy(one => one.Model, StringComparer.Ordinal).Select(ModelUsageJson.From)],
        [.. report.Days.Select(UsageDayJson.From)]);

    public static decimal Rate(TokenTotals tokens) => tokens.Input == 0 ? 0 : decimal.Round((decimal)tokens.Cached / tokens.Input, 4);
}

/// <param name="UnpricedEvents">Events that wait for a price of this model: their tokens are counted here, and cost nothing before they have one.</param>
internal sealed record ModelUsageJson(
    string Model, long Requests, long InputTokens, long OutputTokens, long CachedTokens, MoneyJson Cost, MoneyJson Savings, decimal CacheHitRate, long UnpricedEvents)
{
    public static ModelUsageJson From(ModelUsage usage) => new(
        usage.Model, usage.Events, usage.Tokens.Input, usage.Tokens.Output, usage.Tokens.Cached, MoneyJson.From(usage.Cost), MoneyJson.From(usage.Saved),
        ServerlessUsageAnswer.Rate(usage.Tokens), usage.UnpricedEvents);
}

/// <param name="Date">In the account's time zone: <c>2026-03-01</c>.</param>
internal sealed record UsageDayJson(string Date, long InputTokens, long OutputTokens, long CachedTokens, MoneyJson Cost)
{
    public static UsageDayJson From(UsageDay day) => new(
        day.Day.ToString("yyyy-MM-dd", System.Globalization.CultureInfo.InvariantCulture), day.Tokens.Input, day.Tokens.Output, day.Tokens.Cached, MoneyJson.From(day.Cost));
}

internal sealed record ServerlessPricingAnswer(IReadOnlyList<TokenPriceJson> Pricing);

/// <summary>Prices per million tokens.</summary>
internal sealed record TokenPriceJson(string Model, MoneyJson InputPrice, MoneyJson OutputPrice, MoneyJson CachedPrice, bool IsActive)
{
    public static TokenPriceJson From(TokenPrice price) => new(
        price.Model, MoneyJson.From(price.InputPerMillion), MoneyJson.From(price.OutputPerMillion), MoneyJson.From(price.CachedPerMillion), IsActive: true);
}
