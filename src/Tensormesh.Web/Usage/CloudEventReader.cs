using System.Buffers;
using System.Text;
using System.Text.Json;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>An event as it came: either what it says, or why it cannot be counted.</summary>
/// <param name="Id">As far as it was read; empty: not at all.</param>
internal readonly record struct ReadEvent(string Id, UsageEvent? Usage, UsageOutcome.Rejected? Refused);

/// <summary>
/// Reads usage events from CloudEvents 1.0 in JSON, one pass over the bytes and no tree. One event that is wrong is told by itself, and the next is
/// read: the CloudEvents library refuses a batch as a whole, which would lose the usage of all others. Not for two threads.
/// </summary>
internal sealed class CloudEventReader
{
    public const string EventType = "ai.tensormesh.serverless.usage.v1";

    private const string TwiceDetail = "It gives a member twice: give each once, so that there is one meaning.";
    private const int LongestModel = 256;

    /// <summary>Texts that many events share are one text in memory.</summary>
    private readonly HashSet<string> shared = new(StringComparer.Ordinal);
    private readonly HashSet<string>.AlternateLookup<ReadOnlySpan<char>> sharedBySpan;

    private bool hasTime;
    private Seen seen;
    private string id = "", source = "", account = "", model = "";
    private string? requestId, apiKeyId, problem;
    private DateTimeOffset at;
    private long input, cached, output;

    public CloudEventReader() => sharedBySpan = shared.GetAlternateLookup<ReadOnlySpan<char>>();

    [Flags]
    private enum Seen
    {
        None = 0, SpecVersion = 1, Id = 2, Source = 4, Type = 8, Time = 16, Data = 32, Account = 64, Model = 128, Input = 256, Cached = 512, Output = 1024,
        RequestId = 2048, ApiKeyId = 4096, Usage = 8192, ContentType = 16384,
    }

    /// <summary>Reads the event at the reader's value, and leaves the reader at its last byte.</summary>
    /// <exception cref="JsonException">The bytes are not JSON from here on.</exception>
    public ReadEvent Read(ref Utf8JsonReader reader)
    {
        Reset();
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            reader.Skip();
            return Refuse("An event is a JSON object.");
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName) ReadAttribute(ref reader);
        return Finish();
    }

    /// <summary>An event whose attributes came in headers (CloudEvents, binary mode) and whose body is its data.</summary>
    public ReadEvent ReadBinary(Func<string, string?> header, ReadOnlySpan<byte> data)
    {
        Reset();
        TakeText(header("specversion"), Seen.SpecVersion);
        TakeText(header("id"), Seen.Id);
        TakeText(header("source"), Seen.Source);
        TakeText(header("type"), Seen.Type);
        if (header("time") is { } time)
        {
            seen |= Seen.Time;
            var quoted = Encoding.UTF8.GetBytes(JsonSerializer.Serialize(time));
            var instant = new Utf8JsonReader(quoted);
            instant.Read();
            ReadTime(ref instant);
        }

        var reader = new Utf8JsonReader(data);
        if (reader.Read()) ReadData(ref reader);
        else Problem("Its body must be the data of the event.");
        while (reader.Read()) { }
        return Finish();
    }

    /// <summary>A line that is not JSON.</summary>
    public static ReadEvent Unreadable(string detail) => new("", null, new(UsageRefusal.Unreadable, detail));

    private void Reset()
    {
        (seen, hasTime, problem) = (Seen.None, false, null);
        (id, source, account, model, requestId, apiKeyId) = ("", "", "", "", null, null);
        (at, input, cached, output) = (default, 0, 0, 0);
    }

    private void ReadAttribute(ref Utf8JsonReader reader)
    {
        if (reader.ValueTextEquals("id"u8)) id = ReadText(ref reader, Seen.Id, "id", share: false);
        else if (reader.ValueTextEquals("source"u8)) source = ReadText(ref reader, Seen.Source, "source");
        else if (reader.ValueTextEquals("specversion"u8)) CheckVersion(ReadText(ref reader, Seen.SpecVersion, "specversion"));
        else if (reader.ValueTextEquals("type"u8)) CheckType(ReadText(ref reader, Seen.Type, "type"));
        else if (reader.ValueTextEquals("datacontenttype"u8)) CheckContent(ReadText(ref reader, Seen.ContentType, "datacontenttype"));
        else if (reader.ValueTextEquals("time"u8))
        {
            reader.Read();
            Mark(Seen.Time);
            ReadTime(ref reader);
        }
        else if (reader.ValueTextEquals("data"u8))
        {
            reader.Read();
            ReadData(ref reader);
        }
        else
        {
            if (reader.ValueTextEquals("data_base64"u8)) Problem("Its data must be JSON in 'data', not 'data_base64'.");
            reader.Read();
            reader.Skip();
        }
    }

    private void ReadData(ref Utf8JsonReader reader)
    {
        Mark(Seen.Data);
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            Problem("'data' must be an object.");
            reader.Skip();
            return;
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("account"u8)) account = ReadText(ref reader, Seen.Account, "data.account");
            else if (reader.ValueTextEquals("model"u8)) model = ReadText(ref reader, Seen.Model, "data.model");
            else if (reader.ValueTextEquals("inputTokens"u8)) input = ReadCount(ref reader, Seen.Input, "data.inputTokens");
            else if (reader.ValueTextEquals("cachedTokens"u8)) cached = ReadCount(ref reader, Seen.Cached, "data.cachedTokens");
            else if (reader.ValueTextEquals("outputTokens"u8)) output = ReadCount(ref reader, Seen.Output, "data.outputTokens");
            else if (reader.ValueTextEquals("requestId"u8)) requestId = ReadText(ref reader, Seen.RequestId, "data.requestId", share: false, mayBeNull: true);
            else if (reader.ValueTextEquals("apiKeyId"u8)) apiKeyId = ReadText(ref reader, Seen.ApiKeyId, "data.apiKeyId", mayBeNull: true);
            else if (reader.ValueTextEquals("usage"u8)) ReadUsage(ref reader);
            else
            {
                reader.Read();
                reader.Skip();
            }
        }
    }

    /// <summary>The usage object of the OpenAI API, as an inference server has it at hand, of a buffered answer or of the last chunk of a streamed one.</summary>
    private void ReadUsage(ref Utf8JsonReader reader)
    {
        reader.Read();
        Mark(Seen.Usage);
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            Problem("'data.usage' must be an object. Of a streamed answer it is in the last chunk, if the request asked for it (stream_options.include_usage).");
            reader.Skip();
            return;
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("prompt_tokens"u8)) input = ReadCount(ref reader, Seen.Input, "data.usage.prompt_tokens");
            else if (reader.ValueTextEquals("completion_tokens"u8)) output = ReadCount(ref reader, Seen.Output, "data.usage.completion_tokens");
            else if (reader.ValueTextEquals("prompt_tokens_details"u8)) ReadDetails(ref reader);
            else
            {
                reader.Read();
                reader.Skip();
            }
        }
    }

    /// <summary>Without details, or without a count in them, nothing came from the cache.</summary>
    private void ReadDetails(ref Utf8JsonReader reader)
    {
        reader.Read();
        if (reader.TokenType == JsonTokenType.Null) return;
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            Problem("'data.usage.prompt_tokens_details' must be an object, or null.");
            reader.Skip();
            return;
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var isCached = reader.ValueTextEquals("cached_tokens"u8);
            if (isCached)
            {
                var ahead = reader;
                ahead.Read();
                isCached = ahead.TokenType != JsonTokenType.Null;
            }

            if (isCached)
            {
                cached = ReadCount(ref reader, Seen.Cached, "data.usage.prompt_tokens_details.cached_tokens");
                continue;
            }

            reader.Read();
            reader.Skip();
        }
    }

    private long ReadCount(ref Utf8JsonReader reader, Seen member, string name)
    {
        reader.Read();
        Mark(member);
        if (reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var count)) return count;
        Problem($"'{name}' must be a whole number of tokens.");
        reader.Skip();
        return 0;
    }

    private void ReadTime(ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.String && !reader.ValueIsEscaped && reader.TryGetDateTimeOffset(out at) && HasOffset(ref reader))
        {
            hasTime = true;
            return;
        }

        Problem("'time' must be an instant with its offset, such as 2026-03-01T00:00:00Z: it says at which price the usage is charged.");
        reader.Skip();
    }

    /// <summary>Of what was read as an instant, and so is short. In lines it may lie in two pieces of the body.</summary>
    private static bool HasOffset(ref Utf8JsonReader reader)
    {
        ReadOnlySpan<byte> time = reader.HasValueSequence ? reader.ValueSequence.ToArray() : reader.ValueSpan;
        return time is [.., (byte)'Z'] || (time.Length > 19 && time[19..].IndexOfAny((byte)'+', (byte)'-') >= 0);
    }

    private string ReadText(ref Utf8JsonReader reader, Seen member, string name, bool share = true, bool mayBeNull = false)
    {
        reader.Read();
        Mark(member);
        if (mayBeNull && reader.TokenType == JsonTokenType.Null) return null!;
        if (reader.TokenType != JsonTokenType.String)
        {
            Problem($"'{name}' must be a text.");
            reader.Skip();
            return "";
        }

        // Unescaped, it is never longer than its bytes.
        var length = reader.HasValueSequence ? checked((int)reader.ValueSequence.Length) : reader.ValueSpan.Length;
        if (length > UsageRule.LongestText * 4)
        {
            Problem($"'{name}' must have at most {UsageRule.LongestText} characters.");
            return "";
        }

        Span<char> buffer = stackalloc char[length];
        scoped ReadOnlySpan<char> text;
        try
        {
            text = buffer[..reader.CopyString(buffer)];
        }
        catch (InvalidOperationException)
        {
            Problem($"'{name}' is not valid Unicode.");
            return "";
        }

        CheckText(text, name);
        if (!share) return text.ToString();
        if (sharedBySpan.TryGetValue(text, out var known)) return known;
        known = text.ToString();
        shared.Add(known);
        return known;
    }

    private void TakeText(string? text, Seen attribute)
    {
        if (text is null) return;
        seen |= attribute;
        CheckText(text, attribute.ToString());
        switch (attribute)
        {
            case Seen.Id: id = text; break;
            case Seen.Source: source = text; break;
            case Seen.Type: CheckType(text); break;
            default: CheckVersion(text); break;
        }
    }

    private void CheckText(ReadOnlySpan<char> text, string name)
    {
        if (text.Length is 0 or > UsageRule.LongestText) Problem($"'{name}' must have 1 to {UsageRule.LongestText} characters.");
        else if (text.IndexOfAnyInRange('\0', '\u001f') >= 0) Problem($"'{name}' must be one line without control characters.");
    }

    private void CheckVersion(string version)
    {
        if (version != "1.0") Problem("'specversion' must be 1.0.");
    }

    private void CheckType(string type)
    {
        if (type != EventType) Problem($"'type' must be {EventType}.");
    }

    private void CheckContent(string type)
    {
        if (!type.StartsWith("application/json", StringComparison.OrdinalIgnoreCase)) Problem("'datacontenttype' must be application/json.");
    }

    private void Mark(Seen member)
    {
        if ((seen & member) != 0) Problem(TwiceDetail);
        seen |= member;
    }

    /// <summary>Of several the first is told.</summary>
    private void Problem(string detail) => problem ??= detail;

    private ReadEvent Finish()
    {
        if (problem is null && Missing() is { } missing) Problem(missing);
        if (problem is null && !IsModelName(model)) Problem($"'data.model' must be a name of 1 to {LongestModel} visible ASCII characters that begins with a letter or a digit.");
        return problem is not null
            ? Refuse(problem)
            : new(id, new UsageEvent(source, id, new(account), model, at.ToUniversalTime(), input, cached, output, requestId, apiKeyId), null);
    }

    private string? Missing()
    {
        foreach (var (attribute, name) in (ReadOnlySpan<(Seen, string)>)
            [(Seen.SpecVersion, "specversion"), (Seen.Id, "id"), (Seen.Source, "source"), (Seen.Type, "type"), (Seen.Data, "data"), (Seen.Account, "data.account"), (Seen.Model, "data.model")])
        {
            if ((seen & attribute) == 0) return $"'{name}' is missing.";
        }

        if (!hasTime) return "'time' is missing: it says at which price the usage is charged.";
        if ((seen & Seen.Input) == 0 || (seen & Seen.Output) == 0)
        {
            return "Its tokens are missing: give 'data.inputTokens', 'data.cachedTokens' and 'data.outputTokens', or the usage object of the answer as 'data.usage'. "
                + "A missing count is never taken for 0.";
        }

        return (seen & (Seen.Cached | Seen.Usage)) == 0 ? "'data.cachedTokens' is missing: give 0 where nothing came from the cache, because a prompt from it is cheaper." : null;
    }

    private static bool IsModelName(string name) => name.Length is > 0 and <= LongestModel && char.IsAsciiLetterOrDigit(name[0]) && name.AsSpan().IndexOfAnyExceptInRange('!', '~') < 0;

    private ReadEvent Refuse(string detail) => new(id, null, new(UsageRefusal.Unreadable, detail));
}
