using System.Diagnostics.CodeAnalysis;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// The optional <c>Idempotency-Key</c> header of requests that move money: the same key with the same body is one movement, however
/// often it is sent; with another body it is refused. Without one, each request is a movement of its own, under a key of ours.
/// </summary>
internal sealed record IdempotencyKey(string Value)
{
    public const string Header = "Idempotency-Key";
    public const int Longest = 200;

    /// <summary>
    /// Keys of one caller never meet those of another (a slash within a caller's name is escaped). The account that gets the money is
    /// content, not part of the key.
    /// </summary>
    public static bool TryRead(HttpContext context, Caller caller, string purpose, [NotNullWhen(true)] out IdempotencyKey? key,
        [NotNullWhen(false)] out Problem? refusal)
    {
        (key, refusal) = (null, null);
        var sent = context.Request.Headers[Header];
        if (sent.Count == 0) sent = Guid.NewGuid().ToString();
        if (sent is not [{ Length: > 0 and <= Longest } text] || text.Any(letter => letter is < '!' or > '~'))
        {
            refusal = Problem.Invalid(Header, $"Send one {Header} of 1 to {Longest} visible ASCII characters, such as a UUID, or none.");
            return false;
        }

        // Told in every answer, also in a problem: whoever sent none can still repeat a request whose outcome is in doubt.
        context.Response.OnStarting(() =>
        {
            context.Response.Headers[Header] = text;
            return Task.CompletedTask;
        });
        key = new IdempotencyKey($"{purpose}/caller/{Uri.EscapeDataString(caller.Subject)}/{text}");
        return true;
    }
}
