using System.Xml.Linq;
using Microsoft.AspNetCore.DataProtection.KeyManagement;
using Microsoft.AspNetCore.DataProtection.Repositories;
using Microsoft.AspNetCore.DataProtection.XmlEncryption;
using Microsoft.Extensions.Options;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// The keys that seal the console's cookies are in the ledger's database: a sign-in outlives a restart, and holds at every server. Whoever reads that
/// database reads the money itself, so that the keys are not sealed once more.
/// </summary>
internal sealed class SharedKeys(SessionKeys keys) : IConfigureOptions<KeyManagementOptions>, IXmlRepository
{
    private readonly SessionKeys keys = keys;

    public void Configure(KeyManagementOptions options)
    {
        options.XmlRepository = this;
        options.XmlEncryptor = new NullXmlEncryptor();
    }

    /// <remarks>The framework asks for keys synchronously, once at the first cookie and then once a day.</remarks>
    public IReadOnlyCollection<XElement> GetAllElements()
        => [.. Task.Run(() => keys.ListAsync(CancellationToken.None)).GetAwaiter().GetResult().Select(key => XElement.Parse(key))];

    public void StoreElement(XElement element, string friendlyName)
        => Task.Run(() => keys.AddAsync(friendlyName, element.ToString(SaveOptions.DisableFormatting), CancellationToken.None)).GetAwaiter().GetResult();
}
