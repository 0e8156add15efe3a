using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Tensormesh.TestKit;

/// <summary>
/// Bearer tokens of the development issuer, made without the server's own code, so that the two check each other: HS256 with the
/// key of <c>Tensormesh:DevelopmentSigningKey</c>, <c>sub</c> the account, <c>role</c> USER, ADMIN or SUPER_ADMIN.
/// </summary>
public static class DevelopmentTokens
{
    public const string Issuer = "tensormesh-development";
    public const string Audience = "tensormesh";

    /// <param name="key">At least 32 bytes in UTF-8.</param>
    public static string Issue(string key, string account, string role, DateTimeOffset now, TimeSpan lifetime) => Sign(key, new Dictionary<string, object>
    {
        ["iss"] = Issuer,
        ["aud"] = Audience,
        ["sub"] = account,
        ["role"] = role,
        ["iat"] = now.ToUnixTimeSeconds(),
        ["nbf"] = now.ToUnixTimeSeconds(),
        ["exp"] = (now + lifetime).ToUnixTimeSeconds(),
    });

    /// <summary>Signs any claims: for tokens that a server must refuse.</summary>
    public static string Sign(string key, IReadOnlyDictionary<string, object> claims)
    {
        var head = Base64Url.EncodeToString("""{"alg":"HS256","typ":"JWT"}"""u8);
        var body = Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(claims));
        var signature = HMACSHA256.HashData(Encoding.UTF8.GetBytes(key), Encoding.ASCII.GetBytes($"{head}.{body}"));
        return $"{head}.{body}.{Base64Url.EncodeToString(signature)}";
    }
}
