namespace Tensormesh.Web;

/// <summary>How people sign in to the console. Without either there is no console: the API alone is served.</summary>
internal abstract record ConsoleSettings
{
    private const string Group = "Tensormesh:Console";
    private const string Names = "Tensormesh__Console__";

    private ConsoleSettings() { }

    /// <summary>Anyone as anyone, for a laptop: never together with an identity provider.</summary>
    public sealed record Development : ConsoleSettings;

    /// <summary>At the identity provider that signs the API's tokens, with the authorization code flow and PKCE.</summary>
    /// <param name="ClientSecret">Null for a public client.</param>
    public sealed record OpenIdConnect(string Authority, string ClientId, string? ClientSecret) : ConsoleSettings
    {
        /// <summary>Never the secret.</summary>
        public override string ToString() => $"{ClientId} at {Authority}";
    }

    /// <returns>Null: no console.</returns>
    /// <exception cref="SettingsException">A setting is wrong.</exception>
    public static ConsoleSettings? Read(IConfiguration configuration, TokenIssuer issuer)
    {
        var client = WebSettings.Text(configuration, $"{Group}:ClientId");
        var development = WebSettings.Flag(configuration, $"{Group}:DevelopmentSignIn");
        return (issuer, client, development) switch
        {
            (_, not null, true) => throw new SettingsException(
                $"both {Names}ClientId and {Names}DevelopmentSignIn are set: remove the development sign-in, which lets anyone in as anyone"),
            (TokenIssuer.OpenIdConnect, null, true) => throw new SettingsException(
                $"{Names}DevelopmentSignIn lets anyone in as anyone, and Tensormesh__Authority is set: write {Names}ClientId instead, the console's client at that issuer"),
            (TokenIssuer.Development, not null, _) => throw new SettingsException(
                $"{Names}ClientId is set and no identity provider is: set Tensormesh__Authority to its address"),
            (TokenIssuer.OpenIdConnect provider, { } id, false) => new OpenIdConnect(
                provider.Authority, id, WebSettings.SecretOf(configuration, $"{Group}:ClientSecret", $"{Names}ClientSecret")),
            (TokenIssuer.Development, null, true) => new Development(),
            _ => null,
        };
    }
}
